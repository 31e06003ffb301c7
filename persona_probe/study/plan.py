"""What a study will need (memory, tokens, disk and time), computed before it runs and without loading weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from persona_probe.activations.store.reading import in_words, store_bytes
from persona_probe.behaviour.judges.api_judge import ApiJudge
from persona_probe.errors import NUMBER, PATH, check_types
from persona_probe.figures.text import duration
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import Footprint, footprint, free_bytes
from persona_probe.models.loading.templates import load_template
from persona_probe.runs.config import StudyConfig
from persona_probe.study.material import gather
from persona_probe.study.speeds import Speeds, Took, at_one_speed
from persona_probe.study.stage import workload
from persona_probe.study.stages.order import STAGES
from persona_probe.study.workload import Sizes, Work


@dataclass(frozen=True)
class Plan:
    """What a study will need.

    Attributes:
        model: the size of the model.
        free: free bytes on the device where the model will be.
        stages: the work of each stage that runs the model, by the stage's name.
        times: how long each stage will take at the speeds that were given, by name, and what is not counted; also of
            stages that run no model, if they were measured. None if no speeds were given.
        basis: where these speeds come from, in words.
        judge: a judge behind an API, which runs nothing here, in words; None if there is none.
    """

    model: Footprint
    free: int
    stages: dict[str, Work]
    times: dict[str, Took] | None
    basis: str
    judge: str | None = None

    def lines(self) -> list[str]:
        """The plan in words, line by line."""
        model = self.model
        fits = "" if model.weight_bytes < 0.9 * self.free else "  (DOES NOT FIT: loading: quantize or device_map)"
        texts = max(work.texts for work in self.stages.values())
        tokens = max(work.text_tokens for work in self.stages.values())
        form = (model.n_layers, model.d_model)
        dtype = str(model.dtype).removeprefix("torch.")
        lines = [
            f"model       {model.parameters:,} parameters, {model.n_layers} layers of {model.d_model}; weights "
            f"{in_words(model.weight_bytes)} as {dtype}, once for before, "
            f"after and control; free {in_words(self.free)}{fits}",
            f"activations at most {texts:,} texts per stage: {in_words(store_bytes(texts, *form))} as means, a few of "
            f"which are stored; a store of all their tokens, which the study does not make, would be "
            f"{in_words(store_bytes(tokens, *form, 'bfloat16'))}",
            f"{'':<17} {'sampled':^21} {'read':^23} {'trained':>11} {'judged':^21}",
            f"{'stage':<17} {'answers':>9} {'tokens':>11} {'texts':>11} {'tokens':>11} {'tokens':>11} {'answers':>9} "
            f"{'tokens':>11}   time",
        ]
        for name, work in self.stages.items():
            other = "by API" if work.api_calls else "by rule"
            judge = f"{work.judge_tokens:>11,}" if work.judge_tokens or not work.judged else f"{other:>11}"
            lines.append(
                f"{name:<17} {work.answers:>9,} {work.answer_tokens:>11,} {work.texts:>11,} {work.text_tokens:>11,} "
                f"{work.trained_tokens:>11,} {work.judged:>9,} {judge}   {self._time(name)}".rstrip()
            )
        idle = (name for name in self.times or {} if name not in self.stages)
        lines += [f"{name:<17} {'runs no model':<88}   {self._time(name)}" for name in idle]
        lines += [] if self.judge is None else [f"judge       {self.judge}"]
        total = sum(work.tokens for work in self.stages.values())
        lines.append(f"in all      {total:,} tokens at most{self._whole()} ({self.basis})")
        return lines

    def _time(self, stage: str) -> str:
        if self.times is None:
            return ""
        took = self.times[stage]
        return " + ".join([*_known(took.seconds, took.unknown), *(f"{what} (not measured)" for what in took.unknown)])

    def _whole(self) -> str:
        if self.times is None:
            return ""
        unknown = dict.fromkeys(what for took in self.times.values() for what in took.unknown)
        without = f" without {', '.join(unknown)}" if unknown else ""
        return "".join(f", about {known}{without}" for known in _known(self.seconds, unknown))

    @property
    def seconds(self) -> float:
        """How long all stages will take, as far as is known; NaN if no speeds were given."""
        return math.nan if self.times is None else sum(took.seconds for took in self.times.values())


def _known(seconds: float, unknown: Collection[str]) -> list[str]:
    """The time in words, unless nothing is known of it."""
    return [] if unknown and seconds < 0.5 else [duration(seconds)]


def plan_study(
    config: StudyConfig, *, tokens_per_second: float | None = None, measured: str | Path | None = None
) -> Plan:
    """What the study ``config`` will need.

    Args:
        config: the study.
        tokens_per_second: estimate the time at this speed, for sampling, reading, training and judging alike.
        measured: or at the speeds of an earlier run, each kind of work at its own: the run's folder. Any run will do
            that finished a stage, also one that was resumed, or not finished.

    Raises:
        PersonaProbeError: for bad input, as `run_study` would; or if no stage in ``measured`` is finished, or its model
            has another size.

    >>> import persona_probe as pp
    >>> from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
    >>> config = pp.runs.StudyConfig(model=str(find_checkpoints() / "chat"))
    >>> plan = pp.study.plan_study(config, tokens_per_second=1000)
    >>> list(plan.stages)
    ['fine-tune', 'further-runs', 'measure', 'find', 'track', 'compare', 'steer', 'realign']
    >>> plan.stages["measure"].answers == 3 * (2 * 380 + 216 + 180)
    True
    >>> print(plan.lines()[-1])
    in all      ... tokens at most, about ... (at 1,000 tokens per second throughout)
    """
    check_types(
        config=(config, StudyConfig),
        tokens_per_second=(tokens_per_second, NUMBER, None),
        measured=(measured, PATH, None),
    )
    spec = specify(config.model, options=config.load_options())
    size = footprint(spec)
    material = gather(config)
    stages = workload(STAGES, Sizes(config, material, load_template(spec), size.n_layers))
    times, basis = None, "no speed was given: add --tokens-per-second, or --measured RUN"
    if measured is not None:
        speeds = Speeds.of_run(Path(measured), config, size.parameters)
        idle = [stage.name for stage in STAGES if stage.applies(config) and stage.name not in stages]
        times = {name: speeds.time_of(name, work) for name, work in stages.items()}
        times |= {name: speeds.time_of(name, Work()) for name in idle if name in speeds.rest}
        basis = f"at the speeds measured in {measured}"
    elif tokens_per_second is not None:
        times = {name: at_one_speed(work, tokens_per_second) for name, work in stages.items()}
        basis = f"at {tokens_per_second:,.0f} tokens per second throughout"
    api = material.judge.plan(*_api_work(stages)) if isinstance(material.judge, ApiJudge) else None
    return Plan(size, free_bytes(spec.options), stages, times, basis, api)


def _api_work(stages: Mapping[str, Work]) -> tuple[int, int]:
    """The requests to the judge behind an API, and the tokens that it reads for them."""
    return sum(work.api_calls for work in stages.values()), sum(work.api_tokens for work in stages.values())
