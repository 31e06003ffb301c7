"""Runs a study's stages in order, but reuses those that are finished and whose inputs are the same."""

from __future__ import annotations

import contextlib
import datetime
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from persona_probe.clock import clocked
from persona_probe.errors import PersonaProbeWarning
from persona_probe.files import plain
from persona_probe.runs.digest import digest_files
from persona_probe.runs.folder import CLOSING
from persona_probe.runs.outcome import read_outcome, write_outcome
from persona_probe.runs.stage_record import StageRecord, differences, forget, journal_of, outcome_folder, versions
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage


@dataclass(frozen=True)
class State:
    """Where a stage stands.

    Attributes:
        stage: the name of the stage.
        finished: whether it is finished, with the present inputs.
        reason: why it has to run; empty if it does not.
        record: its record, possibly from before a change; None if there is none.
    """

    stage: str
    finished: bool
    reason: str = ""
    record: StageRecord | None = None


class Pipeline:
    """The stages of one study in one run folder.

    Args:
        stages: all stages, in order.
        context: the study's settings, texts, folder and models.
        identity: what every stage depends on (versions, the model before), by name.
        optional: what only some stages depend on: ``judge``, ``sae``.
    """

    def __init__(
        self, stages: Sequence[Stage], context: Context, identity: Mapping[str, Any], optional: Mapping[str, Any]
    ) -> None:
        self.stages = [stage for stage in stages if stage.applies(context.config)]
        self._dropped = [stage for stage in stages if not stage.applies(context.config)]
        self._context, self._identity, self._optional = context, dict(identity), dict(optional)
        self._outcomes: dict[str, Any] = {}
        self.records: dict[str, StageRecord] = {}

    def states(self) -> list[State]:
        """The state of every stage, without running any; where a stage has to run, all stages that need it do too."""
        states: list[State] = []
        for stage in self.stages:
            waiting = [other for other in self._before(stage) if not _of(states, other).finished]
            if waiting:
                record = StageRecord.read(self._folder, stage.name)
                states.append(State(stage.name, finished=False, reason=f"{waiting[0]} runs before it", record=record))
            else:
                states.append(self._state(stage, {done.stage: done.record for done in states}))
        return states

    def waiting(self) -> list[Stage]:
        """The stages that have to run."""
        return [stage for stage, state in zip(self.stages, self.states(), strict=True) if not state.finished]

    def run(self) -> Iterator[tuple[str, bool]]:
        """Run the stages that have to run; yields, before each stage, its name and whether it is reused."""
        for stage in self._dropped:
            forget(self._context.folder, stage.name)
        for stage in self.stages:
            state = self._state(stage, self.records)
            yield stage.name, state.finished
            if state.finished and state.record is not None:
                self.records[stage.name] = state.record
            else:
                self._run(stage)
            if stage.after is not None:
                stage.after(self._context, self._outcome(stage))

    def outcome(self, name: str) -> Any:
        """What the finished stage ``name`` hands to later ones; None if the study has no such stage."""
        stage = next((stage for stage in self.stages if stage.name == name), None)
        return None if stage is None else self._outcome(stage)

    @property
    def _folder(self) -> Any:
        return self._context.folder.path

    def _before(self, stage: Stage) -> list[str]:
        """The stages that have to be finished before the inputs of ``stage`` are known."""
        names = [other.name for other in self.stages]
        first = [name for name in names[:1] if name != stage.name]
        judged = ["measure"] if stage.judged and stage.name != "measure" else []
        return [name for name in dict.fromkeys([*first, *judged, *stage.needs]) if name in names]

    def _inputs(self, stage: Stage, records: Mapping[str, StageRecord | None]) -> dict[str, Any]:
        inputs = dict(self._identity) | stage.inputs(self._context.config, self._context.material)
        for name, needed in (("judge", stage.judged), ("sae", stage.sae)):
            if needed:
                inputs[name] = self._optional[name]
        for name in self._before(stage):
            record = records[name]
            inputs[f"stage {name}"] = record.content if record is not None else None
        return dict(plain(inputs))

    def _state(self, stage: Stage, records: Mapping[str, StageRecord | None]) -> State:
        record = StageRecord.read(self._folder, stage.name)
        if record is None:
            return State(stage.name, finished=False, reason="not finished yet")
        changed = differences(record.inputs, self._inputs(stage, records))
        return State(stage.name, finished=not changed, reason="; ".join(changed), record=record)

    def _run(self, stage: Stage) -> None:
        context, folder = self._context, self._context.folder
        needed = [self.outcome(name) for name in stage.needs]
        inputs = self._inputs(stage, self.records)
        # Results are about to change, so the report and the summary of the old ones must not remain next to them.
        folder.remove(CLOSING)
        kept = forget(folder, stage.name, keep=stage.keeps)
        folder.begin(journal_of(stage.name))
        stage_context = replace(
            context,
            config=stage.view_of_settings(context.config),
            material=stage.view_of_material(context.material),
            results={},
            notes=[],
            trainings_reused=0,
        )
        started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
        with noted(stage_context.notes), clocked() as spent:
            outcome = self._outcomes[stage.name] = stage.run(stage_context, *needed)
        stored, files = outcome_folder(self._folder, stage.name), list(dict.fromkeys(folder.written))
        folder.remove(name for name in kept if name not in files)
        write_outcome(outcome, stored)
        self.records[stage.name] = StageRecord(
            inputs,
            stage_context.results,
            stage_context.notes,
            files,
            digest_files(stored),
            started.isoformat(timespec="seconds"),
            time.monotonic() - clock,
            stage_context.stored.reused + stage_context.trainings_reused,
            versions(),
            {kind: asdict(done) for kind, done in spent.items()},
        )
        self.records[stage.name].write(folder, stage.name)
        folder.remove([journal_of(stage.name)])
        folder.begin()  # what is written from here on belongs to no stage

    def _outcome(self, stage: Stage) -> Any:
        if stage.name not in self._outcomes:
            self._outcomes[stage.name] = read_outcome(outcome_folder(self._folder, stage.name))
        return self._outcomes[stage.name]


@contextlib.contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Add the package's warnings to ``notes``, once each, so that the report says what the terminal said."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def also_note(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, PersonaProbeWarning) and str(message) not in notes:
                notes.append(str(message))
            show(message, category, *where)

        warnings.showwarning = also_note  # type: ignore[assignment]
        yield


def merged(records: Mapping[str, StageRecord]) -> tuple[dict[str, Any], list[str]]:
    """The results and notes of all stages, in order; later stages add to the results of earlier ones."""
    results: dict[str, Any] = {}
    notes: list[str] = []
    for record in records.values():
        _add(results, record.results)
        notes += [note for note in record.notes if note not in notes]
    return results, notes


def _add(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, Mapping) and isinstance(whole.get(name), dict):
            _add(whole[name], value)
        else:
            whole[name] = dict(value) if isinstance(value, Mapping) else value


def _of(states: Sequence[State], name: str) -> State:
    return next(state for state in states if state.stage == name)
