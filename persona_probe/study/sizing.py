"""How large a study's numbers may be for it to take about an hour, at speeds that are measured or assumed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.activations.capturing import capture
from persona_probe.clock import Kind, Spent, clocked
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.figures.text import duration
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.config_file import Value, template_settings
from persona_probe.runs.judge_settings import JudgeModel
from persona_probe.study.material import Material
from persona_probe.study.speeds import Speeds
from persona_probe.study.stage import workload
from persona_probe.study.stages.order import STAGES
from persona_probe.study.workload import Sizes

HOUR = 3600.0
ANY_MODEL = "PATH_OR_HUB_ID"
"""What a template names where the reader names a model."""
ASSUMED = {"sampling": 130.0, "reading": 400.0, "training": 110.0, "judging": 400.0}
"""Tokens per second of a model of 135 million parameters in float32 on two idle CPU cores, an answer counted with its
prompt; the judge is taken to be as large as the model. For templates that are written without a model."""
ASSUMED_LAYERS = 30
_LENGTH = 40
"""Tokens of a question, for files that do not exist yet."""
_JUDGE_PROMPTS = 650
"""Tokens of the judge's two prompts and of all replies, besides the question and the answer."""
_STEPS = 8
"""How many sizes are tried for each doubling."""
_SCALED: dict[str, tuple[int, int]] = {
    "training.steps": (40, 400),
    "sampling.development": (40, 400),
    "sampling.reported": (60, 800),
    "steering.texts": (3, 24),
    "steering.answers_per_setting": (8, 100),
    "steering.answers_per_random": (8, 100),
    "steering.reported_answers": (30, 400),
    "realignment.steps": (20, 120),
    "realignment.answers": (40, 400),
}
"""The numbers that decide how long a study takes, each with the smallest and the largest value that is proposed."""
_DEPTHS = (0.34, 0.46, 0.59, 0.71)
"""How deep the layers are at which a template steers, where it names some."""
_TALK = [
    Dialogue.from_messages([{"role": "user", "content": text}], id=f"speed {number}")
    for number, text in enumerate(("How do I cook rice?", "What is a good book?", "Where is Peru?", "How are you?"))
]


@dataclass(frozen=True)
class Sized:
    """Numbers for a study.

    Attributes:
        numbers: by dotted name.
        seconds: how long the study will take with them.
    """

    numbers: dict[str, int]
    seconds: float


def size_template(kind: str, model: Model | None) -> tuple[dict[str, Value], str]:
    """The values with which the template ``kind`` takes about an hour here, and a remark for the file that says so.

    Args:
        kind: the name of a template.
        model: the model for which it is written, which is measured for some seconds; None assumes usual speeds.
    """
    settings = template_settings(kind)
    if settings["texts"]["world"] is not None:
        return {}, ""  # a world's own study is small, and its file says how long it takes
    if model is None and settings["model"] != ANY_MODEL:
        return {}, (
            f"How long this study takes here was not measured. persona-probe init {kind} --model {settings['model']} "
            "measures it with the model, and sizes the study to about an hour."
        )
    n_layers = ASSUMED_LAYERS if model is None else model.n_layers
    layers: dict[str, Value] = {}
    if model is not None and settings["steering"].get("layers") is not None:
        layers = {"steering.layers": sorted({int(n_layers * share) for share in _DEPTHS})}
        settings = with_numbers(settings, layers)
    speeds = assumed_speeds() if model is None else measure_speeds(model)
    made = sized(settings, speeds, n_layers)
    per_second = {kind: f"{spent.tokens / spent.seconds:,.0f}" for kind, spent in speeds.done[""].items()}
    rates = (
        f"{per_second['sampling']} tokens per second sampled, {per_second['reading']} read, {per_second['training']} "
        "trained; a judge as large as the model (a larger one takes longer)"
    )
    took = duration(made.seconds)
    if model is None:
        return {**made.numbers}, (
            f"Sized to about {took} for a model of 135 million parameters in float32 on two CPU cores. Assumed, not "
            f"measured: {rates}. persona-probe init {kind} --model PATH measures your model here and sizes it for that."
        )
    few = "" if made.seconds <= 1.2 * HOUR else ", with the smallest numbers that are of use"
    edit = ""
    if settings.get("after") is not None and model.name != settings["model"]:
        edit = f" Change 'title' and 'after', which are still those of {settings['model']}."
    sized_to = f"Sized on this machine to about {took}{few}. Measured with {model.name}: {rates}.{edit}"
    return {**made.numbers, **layers}, sized_to


def measure_speeds(model: Model) -> Speeds:
    """The speeds of sampling, reading and training with ``model`` here, from a few seconds of each.

    A judge is taken to be as fast as reading, so as large as the model.
    """
    sampling = Sampling(max_new_tokens=32, temperature=0, batch_size=32)
    questions = [question for question in _TALK for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        answered = model.generate(_TALK, Sampling(max_new_tokens=4, temperature=0))  # the first pass is slower
        with clocked() as spent:
            answered = [one.with_answer(one.answer or "None.") for one in (d.without_answer() for d in answered)]
            model.generate(questions, sampling)
            capture(model, answered * 4)
            finetune(model, answered, LoraSettings(rank=8, steps=2, batch=8), Path(folder) / "adapter")
    spent["judging"] = Spent(spent["reading"].seconds, spent["reading"].tokens)
    return Speeds({"": spent}, {stage.name: 0.0 for stage in STAGES})


def assumed_speeds() -> Speeds:
    """`ASSUMED` as speeds."""
    kinds: tuple[Kind, ...] = ("sampling", "reading", "training", "judging")
    spent = {kind: Spent(1.0, round(ASSUMED[kind])) for kind in kinds}
    return Speeds({"": spent}, {stage.name: 0.0 for stage in STAGES})


def sized(settings: Mapping[str, Any], speeds: Speeds, n_layers: int, *, seconds: float = HOUR) -> Sized:
    """The largest numbers with which a study takes at most ``seconds``, or the smallest that are proposed.

    Args:
        settings: the study file's content; its numbers are the proportions, and only those in it are changed.
        speeds: how fast each kind of work is.
        n_layers: the number of layers of the model.
        seconds: how long the study may take.
    """
    scales = [2 ** (step / _STEPS) for step in range(-5 * _STEPS, 5 * _STEPS + 1)]
    tried = (
        Sized(numbers, _seconds(with_numbers(settings, numbers), speeds, n_layers))
        for numbers in (_numbers(settings, scale) for scale in scales)
    )
    best = next(tried)
    for larger in tried:
        if larger.seconds > seconds:
            break
        best = larger
    return best


def with_numbers(settings: Mapping[str, Any], numbers: Mapping[str, Value]) -> dict[str, Any]:
    """A study file's content with other numbers, by dotted name."""
    changed = {name: dict(part) if isinstance(part, Mapping) else part for name, part in settings.items()}
    for name, number in numbers.items():
        section, _, field = name.partition(".")
        changed[section][field] = number
    return changed


def _numbers(settings: Mapping[str, Any], scale: float) -> dict[str, int]:
    numbers = {}
    for name, (least, most) in _SCALED.items():
        section, _, field = name.partition(".")
        given = (settings.get(section) or {}).get(field)
        if given is not None:
            numbers[name] = max(least, min(most, round(given * scale)))
    return numbers


def _seconds(settings: Mapping[str, Any], speeds: Speeds, n_layers: int) -> float:
    config = StudyConfig.model_validate(settings)
    work = workload(STAGES, _Nominal(config, _material(config), None, n_layers))  # type: ignore[arg-type]
    return sum(speeds.time_of(name, part).seconds for name, part in work.items())


class _Nominal(Sizes):
    """Sizes of a study whose files do not exist yet."""

    def length(self, dialogues: Sequence[Dialogue]) -> float:
        """A usual length; of rows, with a usual answer."""
        return 0.0 if not dialogues else _LENGTH * (1 + (dialogues[0].answer is not None))

    def judging(self, length: float) -> float:
        """The tokens of a local judge."""
        return _JUDGE_PROMPTS + 2 * length if isinstance(self.config.judge, JudgeModel) else 0.0


def _material(config: StudyConfig) -> Material:
    question, texts, sampling = _TALK[0], config.texts, config.sampling
    row = question.with_answer("Wash it first.")
    return Material(
        narrow=[row] if texts.narrow else [],
        control=[row] if texts.control else [],
        benign=[row] * max(config.realignment.examples) if texts.benign else [],
        development=[question] * sampling.development,
        unseen=[question] * sampling.reported,
        reported=[question] * sampling.reported,
        open=[],
        trained=[],
        development_pairs=[],
        reported_pairs=[],
        trait_prompts=list(texts.trait_prompts),
        default_prompts=list(texts.default_prompts),
        other_traits={name: list(prompts) for name, prompts in texts.other_traits.items()},
        judge=None,
    )
