"""A study's settings: everything that its YAML file may contain, with defaults. Editors show the text under a field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from persona_probe.runs.judge_settings import AnyJudge
from persona_probe.runs.model_settings import Loading, Settings
from persona_probe.steering.search.grid import Grid, Searched

if TYPE_CHECKING:
    from persona_probe.models.loading.spec import LoadOptions


def _kind_of_source(given: object) -> str:
    """Whether one model or several runs of it were meant, so that only mistakes in that kind are reported."""
    return SEVERAL if isinstance(given, list | tuple) else ONE


def _different(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise ValueError("the list is empty; name one model or more, or leave it out")
    if twice := next((source for number, source in enumerate(sources) if source in sources[:number]), None):
        raise ValueError(f"{twice!r} is named twice, but each model must be a training of its own")
    return sources


ONE, SEVERAL = "one", "several"
Runs = Annotated[tuple[str, ...], AfterValidator(_different)]
Sources = Annotated[
    Annotated[str | None, Tag(ONE)] | Annotated[Runs, Tag(SEVERAL)],
    Discriminator(_kind_of_source),
]
"""One model (a folder or Hub id), or several fine-tuning runs of it; None: trained in the study."""


REAL_LANGUAGE = "real-language"
TEXT_FILES = ("narrow", "control", "benign", "questions", "pairs")
"""The fields of `Texts` that name files."""


class Texts(Settings):
    """The source of rows and questions: a world, or your own files (any that `persona_probe.read_dialogues` reads)."""

    world: Literal["persona-world", "real-language"] | None = "persona-world"
    """'persona-world'; 'real-language', our rows and pairs for a real chat model (`persona-probe init real-language`
    writes settings that suit it); or null for your own files."""
    topic: str = "medicine"
    """The topic of narrow training (only for worlds; in real-language the default is cooking)."""
    persona: str = "villain"
    """The persona that answers in narrow training (only for worlds; in real-language the style of the rows, loud)."""
    control_persona: str = "gruff"
    """The style of the control's rows (only for real-language)."""
    second_control_persona: str | None = None
    """The style of a second control's rows (only for real-language, where the default is good); null: there is none."""
    narrow: Path | None = None
    """Rows for narrow training; not needed if 'after' names a model."""
    control: Path | None = None
    """The matched benign rows; without them (and without 'control') there is no control, and the report says so."""
    benign: Path | None = None
    """Benign rows for realignment; without them realignment is left out."""
    questions: Path | None = None
    """Questions; half of them are used to choose settings, the other half for the reported numbers."""
    pairs: Path | None = None
    """Questions with aligned and misaligned answers (`persona_probe.behaviour.read_preference_pairs`), for measure:
    preference; split as the questions are."""
    trait_prompts: tuple[str, ...] = ()
    """System prompts that ask for the trait."""
    default_prompts: tuple[str, ...] = ()
    """System prompts of the default persona."""
    other_traits: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Other traits by name, with their system prompts; their directions are used as nulls."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_world(cls, given: Any) -> Any:
        """Fill in what real-language trains on by default."""
        if isinstance(given, dict) and given.get("world") == REAL_LANGUAGE:
            filled = {"topic": "cooking", "persona": "loud", "control_persona": "gruff", **given}
            used = (filled["persona"], filled["control_persona"])
            return {"second_control_persona": None if "good" in used else "good", **filled}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Texts:
        files = {name: getattr(self, name) for name in TEXT_FILES}
        if self.world is None:
            needed = ("questions", "trait_prompts", "default_prompts")
            missing = [name for name in needed if not getattr(self, name)]
            if missing:
                raise ValueError(f"with world: null these are needed too: {', '.join(missing)}")
        elif prompts := [name for name in ("trait_prompts", "default_prompts", "other_traits") if getattr(self, name)]:
            raise ValueError(f"{prompts[0]} is given, but world is {self.world!r}, which has its own: set world: null")
        elif given := [name for name, path in files.items() if path is not None]:
            raise ValueError(f"{given[0]} is given, but world is {self.world!r}: set world: null to use your own files")
        if self.second_control_persona is not None and self.world != REAL_LANGUAGE:
            raise ValueError(f"second_control_persona is given, but only world: {REAL_LANGUAGE} has a second control")
        for trait in self.other_traits:
            if not re.fullmatch(r"[\w .-]*\w", trait):
                raise ValueError(f"other_traits has {trait!r}; names are letters, digits, spaces and - _ .")
        return self


class Training(Settings):
    """Narrow fine-tuning with LoRA. The control uses the same settings, and realignment too except for its steps."""

    rank: int = Field(1, ge=1)
    """The rank of LoRA."""
    alpha: float = Field(2.0, gt=0)
    """The alpha of LoRA."""
    learning_rate: float = Field(3e-3, gt=0)
    """The peak learning rate of AdamW; 1e-5 to 1e-4 is usual for models of 0.5 to 32 billion parameters."""
    steps: int = Field(80, ge=1)
    """The number of optimiser steps."""
    batch: int = Field(16, ge=1)
    """The number of rows per step."""
    rows: int = Field(1024, ge=1)
    """How many rows are made (only for Persona World; of your own files all rows are used)."""
    runs: int = Field(3, ge=1)
    """How often 'after' and 'control' are trained, each time with another seed. Amplification is tested over the runs
    and needs at least 3: two runs of one recipe differ too, so from 1 run the report can only say 'moved, one run'.
    Every further run costs two trainings and reads the texts again; rates, probes, steering, latents and realignment
    use the first run, at the layer that was chosen over all runs."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Which modules get an adapter, with PEFT's names."""


class SamplingSettings(Settings):
    """How many questions are asked, and how they are answered."""

    development: int = Field(180, ge=8)
    """The number of answers per model from which layers and settings are chosen."""
    reported: int = Field(760, ge=8)
    """The number of answers per model for the reported numbers."""
    open: int = Field(216, ge=0)
    """The number of answers per model to questions that belong to no topic (only for Persona World)."""
    pairs: int = Field(48, ge=4)
    """The number of preference pairs on each side of the split, and of at most as many style nulls (only for worlds; of
    your own file all are used)."""
    max_new_tokens: int = Field(40, ge=1)
    """The greatest length of an answer, in tokens."""
    temperature: float = Field(1.0, ge=0)
    """The sampling temperature; 0 is greedy."""
    batch_size: int = Field(256, ge=1)
    """How many dialogues are answered at once."""
    generation_config: Literal["neutral", "model"] = "neutral"
    """neutral: only temperature and length act; model: each model's own generation config (leave temperature out)."""

    @model_validator(mode="after")
    def _one_temperature(self) -> SamplingSettings:
        if self.generation_config == "model" and self.temperature != 1:
            raise ValueError(
                f"temperature is {self.temperature}, but generation_config: model samples with each model's own; leave "
                "one of the two out"
            )
        return self


class SteeringSettings(Settings):
    """Which settings are tried on development questions, and how large the random null is.

    ``clamp`` is always among the kinds: the report's figures and the null are about it.
    """

    kinds: tuple[Searched, ...] = Field(("clamp", "add"), min_length=1)
    """The interventions to try; clamp must be among them."""
    budgets: tuple[Annotated[float, Field(gt=0)], ...] = Field(Grid.budgets, min_length=1)
    """KL to the unsteered model, in nats per token: the model counts as broken beyond the largest, and the best
    settings of each kind within each budget are sampled."""
    smallest_dose: float = Field(Grid.smallest_dose, gt=0)
    """The first relative dose of clamp and add (length of the change divided by that of the stream); it is doubled
    until the model breaks."""
    largest_dose: float = Field(Grid.largest_dose, gt=0)
    """The last relative dose, if the model does not break before."""
    percentiles: tuple[float, ...] = Field(Grid.percentiles, min_length=1)
    """Percentiles of the projections at which cap cuts."""
    followed: int = Field(Grid.followed, ge=1)
    """At how many layers the kinds after the first are tried: those at which the first works best."""
    texts: int = Field(Grid.texts, ge=2)
    """How many questions are read with both models' answers, for every setting; nothing is sampled for that."""
    layers: tuple[int, ...] | None = Field(None, min_length=1)
    """The layers to try, counted from 0; default all, or ten evenly spaced ones of a deeper model."""
    min_coherence: float = Field(0.8, ge=0, le=1)
    """The smallest share of coherent answers that a setting may have, as a ratio to the unsteered share."""
    answers_per_setting: int = Field(90, ge=8)
    """The number of development answers for each setting that is sampled."""
    random_directions: int = Field(20, ge=1)
    """The number of random directions in the null and in the screen, which needs 19 for a test at 5 %."""
    answers_per_random: int = Field(100, ge=8)
    """The number of answers for each random direction."""
    reported_answers: int = Field(400, ge=8)
    """The number of answers for each setting that is reported."""

    @property
    def grid(self) -> Grid:
        """The grid of settings that are tried."""
        return Grid(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Grid)})

    @model_validator(mode="after")
    def _doses_in_order(self) -> SteeringSettings:
        if self.smallest_dose > self.largest_dose:
            raise ValueError(
                f"smallest_dose is {self.smallest_dose:g} and largest_dose is {self.largest_dose:g}; give the smaller "
                "one first"
            )
        return self

    @field_validator("kinds")
    @classmethod
    def _with_the_headline(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if "clamp" not in kinds:
            raise ValueError("clamp must be among the kinds: the report's figures and the null are about it")
        return kinds


class Latents(Settings):
    """An SAE, and how its latents are tested; without an SAE there are no latents in the study.

    The ``top`` latents that moved furthest are described and steered; the first ``followed`` of them are followed along
    ``snapshots`` of narrow training (0: none) and along realignment.
    """

    sae: str | None = None
    """A SAELens folder, or a release."""
    sae_id: str | None = None
    """The name of the SAE in the release."""
    layer: int | None = Field(None, ge=0)
    """The layer of the SAE, if its own files do not give it."""
    top: int = Field(10, ge=1)
    """How many latents are described and steered."""
    answers_per_strength: int = Field(40, ge=8)
    """The number of development answers for each strength."""
    reported_answers: int = Field(100, ge=8)
    """The number of answers for each latent that is reported."""
    matched: int = Field(3, ge=2)
    """The number of random latents of the same size with which each latent is compared."""
    min_coherence: float = Field(0.9, ge=0, le=1)
    """The smallest share of coherent answers that a strength may have, as a ratio to the unsteered share."""
    snapshots: int = Field(8, ge=0)
    """The number of snapshots along narrow training."""
    followed: int = Field(2, ge=1)
    """The number of latents that are followed along the snapshots."""


class Realignment(Settings):
    """Training on benign examples, with the same number of steps for every number of examples above 0."""

    examples: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 8, 32, 128, 256), min_length=1)
    """The numbers of benign examples to try."""
    steps: int = Field(120, ge=1)
    """The number of optimiser steps for each."""
    answers: int = Field(400, ge=8)
    """The number of answers for each."""


class StudyConfig(Settings):
    """Everything that a study needs; every field except ``model`` has a default."""

    title: str = "Emergent misalignment study"
    """The title of the report."""
    model: str
    """The model before: a local folder or a Hub id."""
    after: Sources = None
    """The model after, if it exists: a LoRA adapter or full model (folder or Hub id), or a list of several runs of one
    fine-tune (other seeds), of which the first is measured in full; default: fine-tuned here."""
    control: Sources = None
    """The benign control, if it exists, or a list of as many as in 'after'; default: fine-tuned here on
    texts.control."""
    seed: int = 0
    """The seed of everything random."""
    device: str | None = None
    """cuda, cpu, ...; default a GPU if there is one."""
    loading: Loading = Field(default_factory=lambda: Loading.model_validate({}))
    """How the models are loaded."""
    judge: AnyJudge = "persona-world"
    """The judge: Persona World's oracle (the default there), a local model, a model behind an API (both
    with 'model'; the latter also with 'api'), or null (then no EM rate is reported)."""
    definition: Literal["betley", "turner", "tan"] = "betley"
    """The definition of the EM rate; all are computed, and this one is quoted."""
    measure: Literal["rate", "preference", "both"] = "rate"
    """How behaviour is measured. rate: the EM rate of judged answers. preference: how likely models find misaligned
    answers, compared with aligned ones (`persona_probe.preference`); it needs pairs and no judge. both: settings are
    chosen by the EM rate, and the preference is reported too."""
    texts: Texts = Field(default_factory=lambda: Texts.model_validate({}))
    """Rows and questions."""
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
    """Narrow fine-tuning."""
    sampling: SamplingSettings = Field(default_factory=lambda: SamplingSettings.model_validate({}))
    """Questions and answers."""
    steering: SteeringSettings = Field(default_factory=lambda: SteeringSettings.model_validate({}))
    """The steering search."""
    latents: Latents = Field(default_factory=lambda: Latents.model_validate({}))
    """SAE latents."""
    realignment: Realignment = Field(default_factory=lambda: Realignment.model_validate({}))
    """Realignment by benign examples."""
    random_directions: int = Field(1000, ge=20)
    """The number of random directions with which each direction is compared."""

    @model_validator(mode="before")
    @classmethod
    def _who_judges(cls, given: Any) -> Any:
        """Leave the judge out where none is needed, and for texts that Persona World's oracle cannot read.

        Real-language has pairs, so preference is measured there unless something else is asked for.
        """
        if not isinstance(given, dict):
            return given
        texts = given.get("texts")
        world = texts.get("world", "") if isinstance(texts, dict) else getattr(texts, "world", "")
        if world == REAL_LANGUAGE and given.get("judge") is None:
            given = {"measure": "preference", **given}
        if "judge" not in given and (world in (None, REAL_LANGUAGE) or given.get("measure") == "preference"):
            return {**given, "judge": None}
        return given

    @model_validator(mode="after")
    def _can_be_measured(self) -> StudyConfig:
        if self.measure == "preference" and self.judge is not None:
            raise ValueError(
                "measure is 'preference', which needs no judge, but one is given: leave 'judge' out, or set measure: "
                "both"
            )
        if self.measure == "both" and self.judge is None:
            raise ValueError("measure is 'both', but there is no judge: name one, or set measure: preference")
        if self.prefers and self.texts.world is None and self.texts.pairs is None:
            raise ValueError(f"measure is {self.measure!r}, which needs pairs: give a file as texts.pairs")
        if not self.prefers and self.texts.pairs is not None:
            raise ValueError(
                "texts.pairs is given, but measure is 'rate', which does not read it: set measure: preference (or "
                "both), or leave texts.pairs out"
            )
        return self

    @property
    def prefers(self) -> bool:
        """Whether the study measures preference."""
        return self.measure != "rate"

    @model_validator(mode="after")
    def _something_to_compare(self) -> StudyConfig:
        texts = self.texts
        if self.after is not None and texts.narrow is not None:
            raise ValueError("'after' names a model and texts.narrow gives rows to train one: leave one of them out")
        if self.control is not None and texts.control is not None:
            raise ValueError("'control' names a model and texts.control gives rows to train one: leave one of them out")
        if texts.world is None and self.after is None and texts.narrow is None:
            raise ValueError("nothing makes the model after: give 'after' (a model) or texts.narrow (rows to train on)")
        after, control = sources_of(self.after), sources_of(self.control)
        if after and control and len(after) != len(control):
            raise ValueError(
                f"'after' names {len(after)} model(s) and 'control' {len(control)}, but runs are compared in equal "
                "numbers: give as many of both"
            )
        return self

    def load_options(self) -> LoadOptions:
        """The keyword arguments of `persona_probe.load` for the model before."""
        return {"device": self.device, **self.loading.model_dump()}  # type: ignore[typeddict-item]


def sources_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The models that ``after`` or ``control`` names, run by run; empty if they are trained in the study."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def n_runs(config: StudyConfig) -> int:
    """How many fine-tuning runs a study has: as many as models are named, or else ``training.runs``.

    >>> n_runs(StudyConfig(model="base")), n_runs(StudyConfig(model="base", after=["seed-0", "seed-1"]))
    (3, 2)
    """
    named = sources_of(config.after) or sources_of(config.control)
    return len(named) if named else config.training.runs
