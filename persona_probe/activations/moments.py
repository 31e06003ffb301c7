"""Mean and covariance over any number of tokens, in memory that does not grow with them; parts can be merged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from persona_probe.activations.activations import SAME_SOURCE, joined_source
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import whole_file

Covariance = Literal["diagonal", "full"]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter over tokens, per layer, in float64.

    ``+`` merges the moments of two sets of tokens by the update of Chan, Golub and LeVeque (1983, "Algorithms for
    computing the sample variance", equation 2.1), so that no digits cancel where means are large.

    Attributes:
        n: ``(layer,)`` number of tokens; sinks are left out, so layers may differ.
        mean: ``(layer, d_model)``.
        scatter: sums of centred squares ``(layer, d_model)``, or of centred products ``(layer, d_model, d_model)``.
        layers: the layer numbers along axis 0.
        n_dialogues: number of dialogues.
        source: where they come from, as in `Activations`.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> talks = [pp.Dialogue.from_text("The fever is high."), pp.Dialogue.from_text("Rest and drink water.")]
    >>> first, second = (pp.capture(model, [talk], "all", reduce="moments", layers=2) for talk in talks)
    >>> both = pp.capture(model, talks, "all", reduce="moments", layers=2)
    >>> merged = first + second
    >>> bool((merged.n == both.n).all()), bool(np.allclose(merged.covariance, both.covariance))
    (True, True)
    """

    n: Int[np.ndarray, layer]
    mean: Float[np.ndarray, "layer d_model"]
    scatter: Float[np.ndarray, "layer ..."]
    layers: tuple[int, ...]
    n_dialogues: int
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise if the moments are not finite."""
        finite = np.isfinite(rearrange(self.scatter, "layer ... -> layer (...)")).all(axis=1)
        if not finite.all():
            raise PersonaProbeError(
                f"activations at layer {self.layers[int(finite.argmin())]} are not finite; load the model in float32 "
                "or bfloat16"
            )

    @property
    def covariance(self) -> Float[np.ndarray, "layer ..."]:
        """Sample covariance ``(layer, d_model, d_model)``, or the variances ``(layer, d_model)``.

        Raises:
            PersonaProbeError: if there are fewer than two tokens at a layer.
        """
        if (self.n < 2).any():
            raise PersonaProbeError(f"a covariance needs two tokens; layer {self.layers[int(self.n.argmin())]} saw one")
        return self.scatter / (self.n - 1).reshape(-1, *[1] * (self.scatter.ndim - 1))

    @property
    def std(self) -> Float[np.ndarray, "layer d_model"]:
        """Standard deviation of each coordinate."""
        covariance = self.covariance
        return np.sqrt(covariance if covariance.ndim == 2 else np.einsum("...ii->...i", covariance))

    def __add__(self, other: Moments) -> Moments:
        """The moments of all tokens of both.

        Raises:
            PersonaProbeError: if layers, shapes, or what was captured and how, differ.
        """
        for name, one, two in (
            ("layers", self.layers, other.layers),
            ("shape", self.scatter.shape, other.scatter.shape),
            *((key, self.source.get(key), other.source.get(key)) for key in SAME_SOURCE),
        ):
            if one != two:
                raise PersonaProbeError(f"moments cannot be merged: {name} differ, {one} and {two}")
        n = self.n + other.n
        share = (other.n / np.maximum(n, 1))[:, None]
        apart = other.mean - self.mean
        lever = (self.n * share[:, 0])[:, None]
        between = lever * apart**2 if self.scatter.ndim == 2 else np.einsum("li,lj->lij", lever * apart, apart)
        return Moments(
            n,
            self.mean + share * apart,
            self.scatter + other.scatter + between,
            self.layers,
            self.n_dialogues + other.n_dialogues,
            joined_source([self.source, other.source]),
        )

    def save(self, path: str | Path) -> None:
        """Write the moments to one safetensors file."""
        check_types(path=(path, PATH))
        tensors = {"n": self.n, "mean": self.mean, "scatter": self.scatter}
        about = {"layers": list(self.layers), "n_dialogues": self.n_dialogues, "source": self.source}
        with whole_file(Path(path)) as part:
            save_file(tensors, part, metadata={"moments": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """The moments in a file that `save` wrote.

        Raises:
            PersonaProbeError: if the file is missing or is something else.
        """
        check_types(path=(path, PATH))
        try:
            with safe_open(str(path), framework="numpy") as file:
                about = json.loads((file.metadata() or {})["moments"])
                tensors = {name: file.get_tensor(name) for name in ("n", "mean", "scatter")}
        except (OSError, KeyError, SafetensorError) as error:
            raise PersonaProbeError(f"{path}: does not hold moments that Moments.save wrote: {error}") from error
        return cls(**tensors, layers=tuple(about["layers"]), n_dialogues=about["n_dialogues"], source=about["source"])
