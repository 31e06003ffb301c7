"""Stage 1: narrow fine-tuning and the matched benign control, or the models that the study names instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from persona_probe.errors import PersonaProbeError
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.loading.adapters import check_fits, is_adapter, with_adapter
from persona_probe.models.loading.load import load, specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.workload import Sizes, Work

ADAPTERS = "adapters"


@dataclass(frozen=True)
class Tuned:
    """What this stage hands to later ones: the models that are compared with the model before.

    Attributes:
        sources: the path or Hub id of each model, by name (``after``, ``control``).
        trained: the names of the models that were trained here; their sources are relative to the run folder.
        hashes: the fingerprint of each model, by name.
    """

    sources: dict[str, str]
    trained: list[str]
    hashes: dict[str, str]


def lora_settings(config: StudyConfig) -> LoraSettings:
    """The study's LoRA settings."""
    training = config.training
    return LoraSettings(
        rank=training.rank,
        alpha=training.alpha,
        learning_rate=training.learning_rate,
        steps=training.steps,
        batch=training.batch,
        target_modules=training.target_modules,
    )


def snapshot_steps(config: StudyConfig) -> list[int]:
    """The training steps after which the narrow adapter is saved, including the last one; none without an SAE."""
    if config.after is not None or config.latents.sae is None:
        return []
    count = config.latents.snapshots
    return sorted({round(config.training.steps * (i + 1) / count) for i in range(count)} - {0})


def train(context: Context) -> Tuned:
    """Fine-tune ``after`` on the narrow rows and ``control`` on the benign ones, with the same settings and seed.

    A model that the study names is loaded instead; without rows and without such a model there is no control.
    """
    config, material = context.config, context.material
    sources, models = {}, {}
    for name, given, rows in (
        ("after", config.after, material.narrow),
        ("control", config.control, material.control),
    ):
        if given is not None:
            sources[name] = given
            models[name] = _opened(context, given)
        elif rows:
            sources[name] = f"{ADAPTERS}/{name}"
            models[name] = _trained(context, name)
    if "control" not in models:
        context.notes.append(
            "There is no control (texts.control, or a model as 'control'): it is not known whether any other "
            "fine-tuning would have moved the models as far along the direction, or their latents."
        )
    context.models.update(models)
    trained = [name for name in sources if getattr(config, name) is None]
    if trained == ["control"]:
        context.notes.append(
            "The model after was given and the control was trained here: it is not known whether they were trained in "
            "the same way, as they should be, and a control that was trained less makes any change look specific."
        )
    return Tuned(sources, trained, {name: model.fingerprint() for name, model in models.items()})


def open_models(context: Context, tuned: Tuned) -> None:
    """Put the models of a finished stage into the context, unless they are there already.

    Raises:
        PersonaProbeError: if a model has other weights than when the stage finished.
    """
    for name, source in tuned.sources.items():
        if name in context.models:
            continue
        place = str(context.folder.path / source) if name in tuned.trained else source
        context.models[name] = _opened(context, place)
        if context.models[name].fingerprint() != tuned.hashes[name]:
            raise PersonaProbeError(
                f"{source}: has other weights than when the study's first stage finished; restore the old weights, or "
                f"delete {context.folder.path / 'stages' / 'fine-tune.json'} to run all stages again"
            )


def check_models(config: StudyConfig, before: Model, options: LoadOptions) -> None:
    """Raise if ``after`` or ``control`` does not exist or does not fit the model before; loads no weights.

    Raises:
        PersonaProbeError: with what is wrong.
    """
    for source in filter(None, (config.after, config.control)):
        if is_adapter(source):
            check_fits(before.plain, source)
            continue
        size = footprint(specify(source, options=_options_of_other(options)))
        if (size.n_layers, size.d_model) != (before.n_layers, before.d_model):
            raise PersonaProbeError(
                f"{source}: has {size.n_layers} layers of width {size.d_model}, the model before {before.n_layers} of "
                f"{before.d_model}; both must be the same architecture"
            )


def _options_of_other(options: LoadOptions) -> LoadOptions:
    """How another full model is loaded: as the model before, but without the revision of the latter's repository."""
    return {**options, "revision": None}


def _opened(context: Context, source: str) -> Model:
    if is_adapter(source):
        return with_adapter(context.before, source)
    model = load(source, **_options_of_other(context.load_options))
    model.descends_from(context.before)
    return model


def _trained(context: Context, name: str) -> Model:
    folder: Path = context.folder.place(f"{ADAPTERS}/{name}")
    snapshots = snapshot_steps(context.config) if name == "after" else []
    if snapshots:
        context.folder.place(f"{ADAPTERS}/{name}-snapshots")
    return finetune(
        context.before,
        context.material.narrow if name == "after" else context.material.control,
        lora_settings(context.config),
        folder,
        seed=context.config.seed,
        progress=context.progress,
        description=f"fine-tuning {name}",
        snapshots=snapshots,
    )


def _work(sizes: Sizes) -> Work:
    config, material = sizes.config, sizes.material
    rows = [rows for rows, given in ((material.narrow, config.after), (material.control, config.control)) if not given]
    each_step = config.training.batch * sum(map(sizes.length, rows))
    return Work(trained_tokens=round(config.training.steps * each_step))


TRAIN = Stage(
    "fine-tune",
    train,
    work=_work,
    settings=("after", "control", "seed", "training"),
    reads=("latents.sae", "latents.snapshots"),
    derived=lambda config: {"snapshots": snapshot_steps(config)},
    material=("narrow", "control"),
    after=open_models,
)
