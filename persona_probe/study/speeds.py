"""The speeds of a machine, by kind of work, as an earlier run of a study measured them, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from persona_probe.clock import KINDS, Kind, Spent
from persona_probe.errors import PersonaProbeError
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.judge_settings import JudgeApi, JudgeModel
from persona_probe.runs.stage_record import StageRecord
from persona_probe.study.sources import stored_parameters
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.order import STAGES
from persona_probe.study.stages.train import TRAIN
from persona_probe.study.workload import Work

_ENOUGH = 1.0
"""Seconds of one kind of work in a stage from which on its own speed is used; else that of all stages together."""


@dataclass(frozen=True)
class Took:
    """How long a stage will take, as far as is known.

    Attributes:
        seconds: of what is known.
        unknown: what is not in them, in words.
    """

    seconds: float
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speeds:
    """What an earlier run measured.

    Attributes:
        done: by stage, the work of each kind that was done there.
        rest: by stage, the seconds that it took besides: loading, statistics, writing.
    """

    done: Mapping[str, Mapping[Kind, Spent]]
    rest: Mapping[str, float]

    @classmethod
    def of_run(cls, run: Path, config: StudyConfig, parameters: int) -> Speeds:
        """The speeds of the stages that are finished in a run's folder, also where the run was resumed.

        Args:
            run: the folder.
            config: the study that is planned; the speed of another judging model says nothing of its own.
            parameters: the size of its model.

        Raises:
            PersonaProbeError: if nothing was measured there, or with a model of another size.
        """
        records = {stage.name: record for stage in STAGES if (record := StageRecord.read(run, stage.name)) is not None}
        of_run = stored_parameters(run)
        if of_run is None or not any(record.measured for record in records.values()):
            raise PersonaProbeError(
                f"{run}: holds no finished stage whose work was measured; give the folder of a study that "
                "`persona-probe run` began with this version"
            )
        if of_run != parameters:
            raise PersonaProbeError(
                f"{run}: was measured on a model of {of_run:,} parameters, this one has {parameters:,}; run a short "
                "study of this model first, or give --tokens-per-second"
            )
        done, rest = {}, {}
        for name, record in records.items():
            spent = {kind: _spent(record.measured[kind]) for kind in KINDS if kind in record.measured}
            rest[name] = max(0.0, record.seconds - sum(one.seconds for one in spent.values()))
            if _judge_of(record.inputs.get("judge")) != _judge_of(_named(config)):
                spent.pop("judging", None)
            done[name] = spent
        return cls(done, rest)

    def time_of(self, stage: str, work: Work) -> Took:
        """How long a stage with this work will take."""
        seconds, unknown = 0.0, list[str]()
        for kind, amount, unit in _amounts(work):
            speed = self._speed(stage, kind, unit)
            if speed is None:
                unknown.append(kind)
            else:
                seconds += amount / speed
        rest = self.rest.get(stage, self.rest.get(TRAIN.name) if stage == FURTHER.name else None)
        if rest is None:
            unknown.append("its own computing")
        return Took(seconds + (rest or 0.0), tuple(unknown))

    def _speed(self, stage: str, kind: Kind, unit: str) -> float | None:
        """Units per second: of this stage, if it did enough of it, else of all stages; None if nobody did any."""
        own, everywhere = self.done.get(stage, {}).get(kind), Spent()
        if own is not None and own.seconds >= _ENOUGH and getattr(own, unit):
            return float(getattr(own, unit) / own.seconds)
        for spent in self.done.values():
            if kind in spent:
                everywhere.seconds += spent[kind].seconds
                everywhere.tokens += spent[kind].tokens
                everywhere.answers += spent[kind].answers
        amount = getattr(everywhere, unit)
        return amount / everywhere.seconds if amount and everywhere.seconds else None


def at_one_speed(work: Work, tokens_per_second: float) -> Took:
    """How long work takes at the same speed throughout; a judge that is not a language model has none."""
    tokens = [(kind, amount) for kind, amount, unit in _amounts(work) if unit == "tokens"]
    unknown = tuple(kind for kind, _, unit in _amounts(work) if unit == "answers")
    return Took(sum(amount for _, amount in tokens) / tokens_per_second, unknown)


def _amounts(work: Work) -> Iterator[tuple[Kind, int, str]]:
    """How much there is of each kind, and of what."""
    for kind, tokens in (
        ("sampling", work.answer_tokens),
        ("reading", work.text_tokens),
        ("training", work.trained_tokens),
        ("judging", work.judge_tokens),
    ):
        if tokens:
            yield kind, tokens, "tokens"  # type: ignore[misc]
    if work.judged and not work.judge_tokens:
        yield "judging", work.judged, "answers"


def _spent(stored: Mapping[str, float]) -> Spent:
    return Spent(stored["seconds"], int(stored["tokens"]), int(stored["answers"]))


def _named(config: StudyConfig) -> object:
    judge = config.judge
    return judge.model_dump(mode="json") if isinstance(judge, JudgeModel | JudgeApi) else judge


def _judge_of(judge: object) -> object:
    """What decides a judge's speed."""
    if isinstance(judge, Mapping):
        return [judge.get(name) for name in ("model", "dtype", "quantize", "base_url")]
    return judge
