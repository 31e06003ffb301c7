"""Every figure that the package draws, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.topics.all_topics import TOPICS


class FigureList(Mapping[str, FigureKind]):
    """The figures by name, as items and as attributes: ``figures["em_rates"]`` is ``figures.em_rates``."""

    def __init__(self, kinds: tuple[FigureKind, ...]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}

    def __getitem__(self, name: str) -> FigureKind:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __getattr__(self, name: str) -> FigureKind:
        try:
            return self.__dict__["_kinds"][name]  # type: ignore[no-any-return]
        except KeyError:
            known = ", ".join(self.__dict__.get("_kinds", ()))
            raise AttributeError(f"there is no figure {name!r}; there are {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._kinds]

    def __repr__(self) -> str:
        width = max(map(len, self._kinds), default=0)
        return "\n".join(f"{name:<{width}}  {kind.about}" for name, kind in self._kinds.items())


figures = FigureList(
    (
        *(part.figure for topic in TOPICS for part in topic.parts),
        *(kind for topic in TOPICS for kind in topic.more_figures),
    )
)
"""The figures of a report, in its order; then the figures of results that no study stores."""
