"""Which latents point where directions point: the cosines, and their null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class LatentAgreement(TableResult):
    """Cosines of decoder rows with directions, and the cosine that the best latent reaches with a random direction.

    Attributes:
        table: one row per direction and latent, best first within a direction: ``latent``, ``direction`` (name),
            ``cosine`` (NaN where the decoder row is zero), ``null`` (97.5 % quantile over random directions of the
            largest absolute cosine of these latents) and ``rank`` (by absolute cosine, from 1).
        about: ``sae``, ``layer`` and the number of ``random`` directions behind the null.
    """

    table: pd.DataFrame
    about: dict[str, Any]

    @property
    def beyond(self) -> pd.DataFrame:
        """The rows that agree more than the null."""
        return self.table[self.table["cosine"].abs() > self.table["null"]]

    def plot(self, n: int = 8) -> go.Figure:
        """The ``n`` nearest latents of each direction, and the null."""
        from persona_probe.figures.latent_agreement import latent_agreement

        return latent_agreement(self.table, n=n)

    def headline(self) -> str:
        """The nearest latent of each direction, and the null."""
        best = self.table[self.table["rank"] == 1].to_dict("records")
        nearest = [f"{row['direction']}: latent {row['latent']} (cosine {row['cosine']:+.2f})" for row in best[:4]]
        more = f"; {len(best) - 4} more directions" if len(best) > 4 else ""
        return (
            f"{self.about['sae']}, layer {self.about['layer']}: {'; '.join(nearest)}{more}; the nearest latent of a "
            f"random direction stays below {self.table['null'].iloc[0]:.2f} in 97.5 % of cases"
        )
