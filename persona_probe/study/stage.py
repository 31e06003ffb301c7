"""What a stage of a study is: a function, and a declaration of everything that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.runs.config import StudyConfig
from persona_probe.runs.digest import digest
from persona_probe.study.material import Material
from persona_probe.study.workload import Sizes, Work

SAMPLING = (
    "seed",
    *(f"sampling.{name}" for name in ("max_new_tokens", "temperature", "batch_size", "generation_config")),
)
"""The settings that every stage which samples answers depends on."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    What a stage depends on is declared: it runs again only if that has changed, and reading a setting or text that is
    not declared is an error, so that a declaration cannot be forgotten.

    Attributes:
        name: its name in ``status``, in the manifest and in the run folder.
        run: takes the context and the outcomes of ``needs``, in order; writes tables, results and notes, and returns
            what later stages need (`persona_probe.runs.outcome`).
        work: how much work the stage gives the models, for the plan.
        settings: dotted names of the settings that it reads; a section's name stands for all settings in it.
        reads: further settings that it reads, which matter only if they change ``derived``.
        derived: what follows from these, by name.
        material: names of the texts that it reads.
        needs: names of the stages whose outcomes it takes.
        judged: whether it uses the judge.
        sae: whether it reads the study's SAE.
        applies: whether a study has this stage.
        after: applies the outcome to the study's context, also where the stage was reused.
        keeps: the start of the names of files that survive when the stage runs again: it reuses those that still fit
            (trainings that were finished when it was stopped), and the others are removed when it has finished.
    """

    name: str
    run: Callable[..., Any]
    work: Callable[[Sizes], Work]
    settings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    derived: Callable[[StudyConfig], Mapping[str, Any]] = lambda _config: {}
    material: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    judged: bool = False
    sae: bool = False
    applies: Callable[[StudyConfig], bool] = lambda _config: True
    after: Callable[[Any, Any], None] | None = None
    keeps: str | None = None

    def view_of_settings(self, config: StudyConfig) -> StudyConfig:
        """A view of ``config`` in which only declared settings can be read."""
        return _Declared(config, (*self.settings, *self.reads), self.name, "setting")  # type: ignore[return-value]

    def view_of_material(self, material: Material) -> Material:
        """A view of ``material`` in which only declared texts can be read."""
        return _Declared(material, self.material, self.name, "text")  # type: ignore[return-value]

    def inputs(self, config: StudyConfig, material: Material) -> dict[str, Any]:
        """The values of all declared settings, by dotted name, and the content of all declared texts."""
        texts = {f"texts: {name}": digest(getattr(material, name)) for name in self.material}
        return {**dict(_leaves("", config.model_dump(mode="json"), self.settings)), **self.derived(config), **texts}


def workload(stages: Sequence[Stage], sizes: Sizes) -> dict[str, Work]:
    """The work of each stage that runs a model, by the stage's name, in order."""
    parts = {stage.name: stage.work(sizes) for stage in stages if stage.applies(sizes.config)}
    return {name: work for name, work in parts.items() if work.tokens}


class _Declared:
    """A view in which only declared attributes can be read."""

    def __init__(self, whole: Any, names: tuple[str, ...], stage: str, what: str) -> None:
        self._whole, self._names, self._stage, self._what = whole, names, stage, what

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._whole, name)
        if name in self._names:
            return value
        inside = tuple(rest for declared in self._names if (rest := declared.removeprefix(f"{name}.")) != declared)
        if inside:
            return _Declared(value, inside, self._stage, self._what)
        raise RuntimeError(
            f"stage {self._stage!r} reads the {self._what} {name!r} without declaring it, so it would not run again "
            f"when the {self._what} changes: add it to the stage's declaration"
        )


def _leaves(prefix: str, value: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    """The settings under ``names``, as pairs of dotted name and value."""
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    leaves = []
    for name, part in value.items():
        dotted = f"{prefix}.{name}" if prefix else str(name)
        whole = any(dotted == declared or dotted.startswith(f"{declared}.") for declared in names)
        if whole or any(declared.startswith(f"{dotted}.") for declared in names):
            leaves += _leaves(dotted, part, names)
    return leaves
