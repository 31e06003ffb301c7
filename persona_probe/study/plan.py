"""What a study will need (memory, tokens, disk and time), computed before it runs and without loading weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from persona_probe.activations.store.reading import in_words, store_bytes
from persona_probe.errors import NUMBER, PATH, PersonaProbeError, check_types
from persona_probe.figures.text import duration
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import Footprint, footprint, free_bytes
from persona_probe.models.loading.templates import load_template
from persona_probe.runs.config import StudyConfig
from persona_probe.study.material import gather
from persona_probe.study.stage import workload
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.order import STAGES
from persona_probe.study.stages.train import TRAIN
from persona_probe.study.workload import Sizes, Work


@dataclass(frozen=True)
class Plan:
    """What a study will need.

    Attributes:
        model: the size of the model.
        free: free bytes on the device where the model will be.
        stages: the work of each stage that runs the model, by the stage's name.
        seconds: how long each stage will take at the speeds that were given; None if none were given.
        basis: where these speeds come from, in words.
    """

    model: Footprint
    free: int
    stages: dict[str, Work]
    seconds: dict[str, float] | None
    basis: str

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
            f"{'stage':<17} {'answers':>9} {'tokens':>11} {'texts read':>11} {'tokens':>11} {'trained':>11}   time",
        ]
        for name, work in self.stages.items():
            took = "" if self.seconds is None else duration(self.seconds[name])
            lines.append(
                f"{name:<17} {work.answers:>9,} {work.answer_tokens:>11,} {work.texts:>11,} "
                f"{work.text_tokens:>11,} {work.trained_tokens:>11,}   {took}"
            )
        total = sum(work.tokens for work in self.stages.values())
        whole = "" if self.seconds is None else f", about {duration(sum(self.seconds.values()))}"
        lines.append(f"in all      {total:,} tokens at most{whole} ({self.basis})")
        return lines


def plan_study(
    config: StudyConfig, *, tokens_per_second: float | None = None, measured: str | Path | None = None
) -> Plan:
    """What the study ``config`` will need.

    Args:
        config: the study.
        tokens_per_second: estimate the time at this speed, for answers, reading and training alike.
        measured: or at the speeds by stage of an earlier run: its folder.

    Raises:
        PersonaProbeError: for bad input, as `run_study` would; or if ``measured`` does not hold a finished run, or its
            model has another size.

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
    stages = workload(STAGES, Sizes(config, gather(config), load_template(spec), size.n_layers))
    seconds, basis = None, "no speed was given: add --tokens-per-second, or --measured RUN"
    if measured is not None:
        speeds = _speeds(Path(measured), size)
        missing = [name for name in stages if name not in speeds]
        if missing:
            raise PersonaProbeError(f"{measured}: that run has no stage {missing[0]!r} to take the speed from")
        seconds = {name: work.tokens / speeds[name] for name, work in stages.items()}
        basis = f"at the speeds measured in {measured}"
    elif tokens_per_second is not None:
        seconds = {name: work.tokens / tokens_per_second for name, work in stages.items()}
        basis = f"at {tokens_per_second:,.0f} tokens per second throughout"
    return Plan(size, free_bytes(spec.options), stages, seconds, basis)


def _speeds(run: Path, size: Footprint) -> dict[str, float]:
    file = run / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        work, parameters = manifest["work"], manifest["parameters"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise PersonaProbeError(
            f"{run}: holds no finished run from which to take the speeds ({type(error).__name__}: {error})"
        ) from error
    if parameters != size.parameters:
        raise PersonaProbeError(
            f"{run}: was measured on a model of {parameters:,} parameters, this one has {size.parameters:,}; run a "
            "short study of this model first, or give --tokens-per-second"
        )
    speeds = {stage: part["tokens"] / part["seconds"] for stage, part in work.items()}
    if TRAIN.name in speeds:  # a study of one run shows how fast further ones train
        speeds.setdefault(FURTHER.name, speeds[TRAIN.name])
    return speeds
