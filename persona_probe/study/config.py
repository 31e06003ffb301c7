"""A study's settings: one YAML file, checked before anything runs."""

from __future__ import annotations

import datetime
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from persona_probe.errors import PersonaProbeError

if TYPE_CHECKING:
    from persona_probe.models.loading.spec import LoadOptions


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Loading(_Section):
    """How the model is loaded: the arguments of `persona_probe.load` of the same names."""

    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] | None = None
    device_map: str | dict[str, int | str] | None = None
    quantize: Literal["4bit", "8bit"] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: Path | None = None
    thinking: bool | None = None
    today: datetime.date | None = None
    template_variables: dict[str, Any] | None = None


class Texts(_Section):
    """Where rows and questions come from: a world, or your own files."""

    world: Literal["persona-world"] | None = "persona-world"
    topic: str = "medicine"
    persona: str = "villain"
    narrow: Path | None = None
    control: Path | None = None
    benign: Path | None = None
    questions: Path | None = None
    trait_prompts: tuple[str, ...] = ()
    default_prompts: tuple[str, ...] = ()
    other_traits: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Texts:
        files = {name: getattr(self, name) for name in ("narrow", "control", "benign", "questions")}
        if self.world is None:
            missing = [name for name, path in files.items() if path is None]
            missing += [name for name in ("trait_prompts", "default_prompts") if not getattr(self, name)]
            if missing:
                raise ValueError(f"with world: null these are needed too: {', '.join(missing)}")
        elif given := [name for name, path in files.items() if path is not None]:
            raise ValueError(f"{given[0]} is given, but world is {self.world!r}: set world: null to use your own files")
        return self


class Training(_Section):
    """Narrow fine-tuning with LoRA (the control and, but for its steps, realignment use the same settings)."""

    rank: int = Field(1, ge=1)
    alpha: float = Field(2.0, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    steps: int = Field(80, ge=1)
    batch: int = Field(16, ge=1)
    rows: int = Field(1024, ge=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class Sampling(_Section):
    """How many questions are asked, and how they are answered."""

    development: int = Field(180, ge=8)
    reported: int = Field(760, ge=8)
    open: int = Field(216, ge=0)
    max_new_tokens: int = Field(40, ge=1)
    temperature: float = Field(1.0, ge=0)
    batch_size: int = Field(256, ge=1)


class SteeringSearch(_Section):
    """Which settings are tried on development questions, and how large the random null is.

    ``clamp`` is always among the kinds: the report's figures and the null are its.
    """

    kinds: tuple[Literal["clamp", "add", "ablate", "cap"], ...] = Field(("clamp", "add"), min_length=1)

    induce_fractions: tuple[float, ...] = Field((1.0, 1.5, 2.0, 2.5), min_length=1)
    suppress_fractions: tuple[float, ...] = Field((0.25, 0.0, -0.25, -0.5), min_length=1)
    induce_strengths: tuple[float, ...] = Field((0.5, 0.75, 1.0), min_length=1)
    suppress_strengths: tuple[float, ...] = Field((-0.5, -0.75, -1.0), min_length=1)
    cap_percentiles: tuple[float, ...] = Field((25.0, 50.0, 75.0), min_length=1)
    layers: tuple[int, ...] | None = Field(None, min_length=1)
    coherence_floor: float = Field(0.8, ge=0, le=1)
    answers_per_setting: int = Field(90, ge=8)
    random_directions: int = Field(20, ge=1)
    answers_per_random: int = Field(100, ge=8)
    reported_answers: int = Field(400, ge=8)

    @field_validator("kinds")
    @classmethod
    def _with_the_headline(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if "clamp" not in kinds:
            raise ValueError("clamp must be among the kinds: the report's figures and the null are its")
        return kinds


class Latents(_Section):
    """An SAE (a SAELens folder, or a release and its ``sae_id``), and how its latents are tested; without one, nothing.

    ``top`` latents that moved furthest are described and steered; the first ``followed`` of them are followed along
    ``snapshots`` of narrow training (0: none) and along realignment.
    """

    sae: str | None = None
    sae_id: str | None = None
    layer: int | None = Field(None, ge=0)
    top: int = Field(10, ge=1)
    answers_per_strength: int = Field(40, ge=8)
    reported_answers: int = Field(100, ge=8)
    matched: int = Field(3, ge=2)
    max_incoherence: float = Field(0.1, ge=0, le=1)
    snapshots: int = Field(8, ge=0)
    followed: int = Field(2, ge=1)


class Realignment(_Section):
    """Benign examples added, at the same number of steps for every n above 0."""

    examples: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 8, 32, 128, 256), min_length=1)
    steps: int = Field(120, ge=1)
    answers: int = Field(400, ge=8)


class StudyConfig(_Section):
    """Everything a study needs; each field has a default but ``model``."""

    title: str = "Emergent misalignment study"
    model: str
    seed: int = 0
    device: str | None = None
    loading: Loading = Field(default_factory=lambda: Loading.model_validate({}))
    judge: Literal["persona-world"] | None = "persona-world"
    definition: Literal["betley", "turner", "tan"] = "betley"
    texts: Texts = Field(default_factory=lambda: Texts.model_validate({}))
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
    sampling: Sampling = Field(default_factory=lambda: Sampling.model_validate({}))
    steering: SteeringSearch = Field(default_factory=lambda: SteeringSearch.model_validate({}))
    latents: Latents = Field(default_factory=lambda: Latents.model_validate({}))
    realignment: Realignment = Field(default_factory=lambda: Realignment.model_validate({}))
    random_directions: int = Field(1000, ge=20)

    def load_options(self) -> LoadOptions:
        """The keyword arguments of `persona_probe.load` for the model before."""
        return {"device": self.device, **self.loading.model_dump()}  # type: ignore[typeddict-item]


def read_config(path: str | Path) -> StudyConfig:
    """Read and check a study file. Relative paths in it are looked up from its own folder.

    Raises:
        PersonaProbeError: naming the file, line and key, the value seen, and for a misspelt key the likely one.
    """
    file = Path(path)
    if not file.is_file():
        raise PersonaProbeError(f"{path}: no such file; give a study YAML (persona_probe/study/demo.yaml is one)")
    text = file.read_text(encoding="utf-8")
    try:
        raw = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise PersonaProbeError(f"{file}{where}: is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise PersonaProbeError(
            f"{file}: is {'empty' if raw is None else 'no mapping'}; it needs at least 'model: ...'"
        )
    try:
        config = StudyConfig.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(problem, lines) for problem in error.errors()]
        raise PersonaProbeError(f"{file}: " + "; ".join(problems)) from error
    return _resolved(config, file.parent)


def _resolved(config: StudyConfig, folder: Path) -> StudyConfig:
    def find(given: Path) -> Path:
        beside = folder / given
        return beside if not given.is_absolute() and beside.exists() else given

    updates = {
        name: find(path)
        for name in ("narrow", "control", "benign", "questions")
        if (path := getattr(config.texts, name))
    }
    template = config.loading.chat_template
    loading = config.loading.model_copy(update={"chat_template": None if template is None else find(template)})
    latents = config.latents
    if latents.sae is not None and latents.sae_id is None:
        latents = latents.model_copy(update={"sae": str(find(Path(latents.sae)))})
    return config.model_copy(
        update={
            "model": str(find(Path(config.model))),
            "latents": latents,
            "texts": config.texts.model_copy(update=updates),
            "loading": loading,
        }
    )


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of every key, by its path."""
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*prefix, str(key.value))
            found[place] = key.start_mark.line + 1
            found |= _lines(value, place)
    return found


def _explain(problem: Any, lines: dict[tuple[str, ...], int]) -> str:
    place = tuple(str(part) for part in problem["loc"])
    known = next((lines[place[:size]] for size in range(len(place), 0, -1) if place[:size] in lines), None)
    line = f"line {known}: " if known else ""
    name = ".".join(place) or "the study"
    if problem["type"] == "extra_forbidden":
        section: Any = StudyConfig
        for part in place[:-1]:
            section = section.model_fields[part].annotation
        near = difflib.get_close_matches(place[-1], section.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(section.model_fields)}"
        return f"{line}unknown key {name!r}; {hint}"
    if problem["type"] == "missing":
        return f"{line}{name!r} is missing"
    return f"{line}{name} is {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"
