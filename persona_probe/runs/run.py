"""A run, opened again: every result as an object, without torch and without the models."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.figures.text import visible
from persona_probe.result import Result
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.config_file import read_config
from persona_probe.runs.folder import OBJECTS
from persona_probe.runs.outcome import read_outcome
from persona_probe.runs.record import RunRecord, read_run

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.amplification.amplification_result import Amplification
    from persona_probe.amplification.finder_comparison_result import FinderComparison
    from persona_probe.amplification.persona_space import PersonaSpace
    from persona_probe.amplification.projections import Projections
    from persona_probe.behaviour.answer_fluency_result import Fluency
    from persona_probe.behaviour.answers import Answers
    from persona_probe.behaviour.em_rates_result import EmRates
    from persona_probe.behaviour.preference_result import Preference
    from persona_probe.directions.cosines import CosineTable
    from persona_probe.directions.direction import Direction
    from persona_probe.finetuning.realignment_curve import RealignmentCurve
    from persona_probe.latents.causal.rank_result import LatentEffects
    from persona_probe.latents.causal.steer_set_result import SetEffect
    from persona_probe.latents.courses.track_result import LatentTrajectory
    from persona_probe.latents.description.describe_result import LatentDescriptions
    from persona_probe.latents.ranking.diff_result import LatentTable
    from persona_probe.probes.probe_result import ProbeWithBaselines
    from persona_probe.steering.search.search_result import SteeringSearch


@dataclass(frozen=True, eq=False, repr=False)
class Run(RunRecord, Result):
    """A finished run, whose results are read when they are first asked for.

    Asking for a result that the study did not have raises an error, which says what there is.

    Attributes:
        directory: the run folder.
        results: the content of ``results.json``: the numbers that the report's sentences quote.
        manifest: the content of ``manifest.json``: settings, seeds, versions, hashes, and the inputs of every stage.
        tables: every table, by name.
        latent_cards: what single latents stand for, as plain records.
    """

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.directory / "report.html"

    @cached_property
    def config(self) -> StudyConfig:
        """The settings of the study."""
        return read_config(self.directory / "study.yaml")

    @cached_property
    def answers(self) -> Answers:
        """Every judged answer of the models before and after and of the control."""
        from persona_probe.behaviour.answers import Answers

        if "answers" not in self.tables:
            raise self._missing("answers")
        return Answers(self.tables["answers"], source=str(self.directory))

    @cached_property
    def em_rates(self) -> EmRates:
        """EM rates by model, question set and definition."""
        return self._object("em_rates")  # type: ignore[no-any-return]

    @cached_property
    def preference(self) -> Preference:
        """What the models prefer, over all fine-tuning runs (``measure: preference``)."""
        return self._object("preference")  # type: ignore[no-any-return]

    @cached_property
    def fluency(self) -> Fluency:
        """Whether the answers are fluent, by no judge (``measure: preference``)."""
        return self._object("fluency")  # type: ignore[no-any-return]

    @cached_property
    def directions(self) -> dict[str, Direction]:
        """All directions of the study, by file name: ``contrast-of-context`` is the persona direction."""
        from persona_probe.directions.direction import Direction

        files = sorted((self.directory / "directions").glob("*.safetensors"))
        return {file.stem: Direction.load(file) for file in files}

    @cached_property
    def direction_cosines(self) -> CosineTable:
        """How far the directions agree, compared with random ones."""
        return self._object("direction_cosines")  # type: ignore[no-any-return]

    @cached_property
    def amplification(self) -> Amplification:
        """Amplification along the persona direction, with its nulls."""
        return self._object("amplification")  # type: ignore[no-any-return]

    @cached_property
    def projections(self) -> Projections:
        """Where before, after and the control lie on the persona direction, layer by layer."""
        return self._object("projections")  # type: ignore[no-any-return]

    @cached_property
    def persona_space(self) -> PersonaSpace:
        """Where they lie among the directions of the personas, at the chosen layer."""
        return self._object("persona_space")  # type: ignore[no-any-return]

    @cached_property
    def finders(self) -> FinderComparison:
        """Every finder, given the same poles."""
        return self._object("finders")  # type: ignore[no-any-return]

    @cached_property
    def probe(self) -> ProbeWithBaselines:
        """The probe of misaligned against aligned answers, with its baselines."""
        return self._object("probe")  # type: ignore[no-any-return]

    @cached_property
    def probe_same_words(self) -> ProbeWithBaselines:
        """The probe of the same answers under two system prompts, with its baselines."""
        return self._object("probe_same_words")  # type: ignore[no-any-return]

    @cached_property
    def steering(self) -> dict[str, SteeringSearch]:
        """The steering searches, by goal: ``induce`` and ``suppress``."""
        return self._object("steering")  # type: ignore[no-any-return]

    @cached_property
    def latents(self) -> LatentTable:
        """How much each latent moved, with its nulls."""
        return self._object("latents")  # type: ignore[no-any-return]

    @cached_property
    def latent_descriptions(self) -> LatentDescriptions:
        """What the latents that moved furthest stand for."""
        return self._object("latent_descriptions")  # type: ignore[no-any-return]

    @cached_property
    def latent_effects(self) -> dict[str, LatentEffects]:
        """How steering with single latents changes behaviour, by goal: ``induce`` and ``suppress``."""
        return self._object("latent_effects")  # type: ignore[no-any-return]

    @cached_property
    def latent_set(self) -> SetEffect:
        """How ablating all of these latents together changes behaviour."""
        return self._object("latent_set")  # type: ignore[no-any-return]

    @cached_property
    def latent_course(self) -> LatentTrajectory:
        """The course of latents along narrow training."""
        return self._object("latent_course")  # type: ignore[no-any-return]

    @cached_property
    def latent_realignment(self) -> LatentTrajectory:
        """The course of the same latents along realignment."""
        return self._object("latent_realignment")  # type: ignore[no-any-return]

    @cached_property
    def realignment(self) -> RealignmentCurve:
        """How many benign examples bring the model back."""
        return self._object("realignment")  # type: ignore[no-any-return]

    def to_frame(self) -> pd.DataFrame:
        """One row per number that the report quotes: its place in ``results`` and its value."""
        return pd.DataFrame(list(_flat("", self.results)), columns=["result", "value"])

    def plot(self) -> go.Figure:
        """The main figure: EM rates or preference, amplification, steering and realignment."""
        from persona_probe.figures.summary import summary

        names = ("em_rates", "amplification", "steering", "realignment", "preference")
        return summary(*(self.tables.get(name) for name in names))

    def headline(self) -> str:
        """The findings of the study, one per line."""
        lines = self.results.get("summary")
        if not isinstance(lines, list) or not lines:
            return f"{visible(str(self.results.get('title')))}: this run has no summary; see its tables and results"
        return "\n".join(visible(str(line)) for line in lines)

    def __repr__(self) -> str:
        """Title, folder and findings."""
        return f"Run({self.results.get('title')!r} in {self.directory})\n{self.headline()}"

    def __str__(self) -> str:
        """The same."""
        return repr(self)

    def _repr_html_(self) -> str:
        title = html.escape(str(self.results.get("title")))
        return f"<p><b>{title}</b> in {html.escape(str(self.directory))}</p><pre>{html.escape(self.headline())}</pre>"

    def _object(self, name: str) -> Any:
        folder = self.directory / OBJECTS / name
        if not folder.is_dir():
            raise self._missing(name)
        return read_outcome(folder)

    def _missing(self, name: str) -> PersonaProbeError:
        folder = self.directory / OBJECTS
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        notes = " ".join(str(note) for note in self.results.get("notes") or [])
        return PersonaProbeError(
            f"{self.directory}: this run has no {name}; it has {', '.join(there) or 'no results that can be opened'}. "
            + (f"Its notes say: {notes}" if notes else "An earlier version wrote it, or the study has no such stage.")
        )


def open_run(directory: str | Path) -> Run:
    """The finished run in a folder; neither torch nor the models are needed to open it.

    Raises:
        PersonaProbeError: if the folder does not hold a finished run.
    """
    check_types(directory=(directory, PATH))
    folder = Path(directory)
    if not folder.is_dir():
        raise PersonaProbeError(f"{folder}: no such folder; give a run's folder, such as runs/demo")
    if not (folder / "results.json").is_file():
        begun = (folder / "study.yaml").is_file()
        raise PersonaProbeError(
            f"{folder}: "
            + (
                f"this run is not finished; `persona-probe status {folder}` says how to resume it"
                if begun
                else "holds no results.json, so it is not a run folder; give a run's folder, such as runs/demo"
            )
        )
    record = read_run(folder)
    return Run(**{field.name: getattr(record, field.name) for field in fields(record)})


def _flat(prefix: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), part)
    elif not isinstance(value, list):
        yield prefix, value
