"""Stage 1: narrow fine-tuning and the matched benign control, or the models that the study names instead."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain, write_json
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.finetuning.snapshots import snapshot_paths
from persona_probe.models.loading.adapters import check_fits, is_adapter, with_adapter
from persona_probe.models.loading.load import load, specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig, Training, sources_of
from persona_probe.runs.digest import digest
from persona_probe.study.context import Context, seed_for
from persona_probe.study.sources import identity
from persona_probe.study.stage import Stage
from persona_probe.study.workload import Sizes, Work

ADAPTERS = "adapters"
SECOND_CONTROL = "second control"
"""The model that is trained on the rows of a second control, which no study names."""
_ROWS = {"after": "narrow", "control": "control", SECOND_CONTROL: "second_control"}
TRAINING = tuple(f"training.{name}" for name in Training.model_fields if name != "runs")
"""The settings of one training; how often there is one does not change the first run."""
_CARD = "training.json"
"""In the folder of a finished adapter: from what it was trained, so that no training is repeated."""


@dataclass(frozen=True)
class Tuned:
    """One fine-tuning run: the models that are compared with the model before.

    Attributes:
        sources: the path or Hub id of each model, by name (``after``, ``control``; ``second control``).
        trained: the names of the models that were trained here; their sources are relative to the run folder.
        hashes: the fingerprint of each model, by name.
        seed: the seed of the trainings.
    """

    sources: dict[str, str]
    trained: list[str]
    hashes: dict[str, str]
    seed: int


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


def first_of(config: StudyConfig, name: str) -> str | None:
    """The model that the study names as the first run of ``after`` or ``control``; None if it is trained here."""
    return next(iter(_named(config, name)), None)


def seed_of(config: StudyConfig, run: int) -> int:
    """The seed of a fine-tuning run: the study's for the first, and another one for each further run."""
    return seed_for(config.seed, f"fine-tuning run {run}") if run else config.seed


def train(context: Context) -> Tuned:
    """Fine-tune ``after`` on the narrow rows and ``control`` on the benign ones, with the same settings and seed.

    A model that the study names is loaded instead; without rows and without such a model there is no control.
    """
    models = {name: tune(context, name, 0) for name in compared(context)}
    context.models.update(models)
    if "control" not in models:
        context.notes.append(
            "There is no control (texts.control, or a model as 'control'): it is not known whether any other "
            "fine-tuning would have moved the models as far along the direction, or their latents."
        )
    tuned = tuned_run(context.config, 0, {name: model.fingerprint() for name, model in models.items()})
    context.results["fine_tuning"] = fine_tuning([tuned])
    if tuned.trained == ["control"]:
        context.notes.append(
            "The model after was given and the control was trained here: it is not known whether they were trained in "
            "the same way, as they should be, and a control that was trained less makes any change look specific."
        )
    return tuned


def seeds_of(runs: Sequence[Tuned]) -> list[int]:
    """The seeds of the runs that were trained here."""
    return [run.seed for run in runs if run.trained]


def fine_tuning(runs: Sequence[Tuned]) -> dict[str, Any]:
    """What ``results.json`` says of the runs."""
    return {"n_runs": len(runs), "seeds": seeds_of(runs)}


def compared(context: Context) -> list[str]:
    """The names of the models that the study compares with the model before."""
    config, material = context.config, context.material
    return ["after"] + ["control"] * (config.control is not None or bool(material.control))


def tuned_run(config: StudyConfig, run: int, hashes: dict[str, str]) -> Tuned:
    """A run of whose models the fingerprints are known, by name."""
    sources = {name: _source(config, name, run) for name in hashes}
    return Tuned(sources, [name for name in hashes if not _named(config, name)], dict(hashes), seed_of(config, run))


def tune(context: Context, name: str, run: int) -> Model:
    """A model of a run (``after``, ``control`` or `SECOND_CONTROL`), trained or loaded."""
    source = _source(context.config, name, run)
    return _opened(context, source) if _named(context.config, name) else _trained(context, name, run)


def open_models(context: Context, tuned: Tuned) -> None:
    """Put the models of a finished stage into the context, unless they are there already.

    Raises:
        PersonaProbeError: if a model has other weights than when the stage finished.
    """
    for name in tuned.sources:
        if name not in context.models:
            context.models[name] = opened(context, tuned, name)


def opened(context: Context, tuned: Tuned, name: str) -> Model:
    """A model of a finished run.

    Raises:
        PersonaProbeError: if it has other weights than when the run finished.
    """
    source = tuned.sources[name]
    model = _opened(context, str(context.folder.path / source) if name in tuned.trained else source)
    if model.fingerprint() != tuned.hashes[name]:
        stages = context.folder.path / "stages"
        raise PersonaProbeError(
            f"{source}: has other weights than when its run finished; restore the old weights, or delete "
            f"{stages / 'fine-tune.json'} and, if it exists, {stages / 'further-runs.json'} to make the runs again"
        )
    return model


def check_models(config: StudyConfig, before: Model, options: LoadOptions) -> None:
    """Raise if a model of ``after`` or ``control`` does not exist or does not fit the model before; loads no weights.

    Raises:
        PersonaProbeError: with what is wrong.
    """
    for source in (*sources_of(config.after), *sources_of(config.control)):
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


def _source(config: StudyConfig, name: str, run: int) -> str:
    """Where a model of a run is: as the study names it, or in the run folder."""
    named = _named(config, name)
    return named[run] if named else f"{ADAPTERS}/{name.replace(' ', '-')}" + (f"-run{run}" if run else "")


def _named(config: StudyConfig, name: str) -> Sequence[str]:
    """What the study names as runs of a model; nothing if it is trained here."""
    return () if name == SECOND_CONTROL else sources_of(getattr(config, name))


def _opened(context: Context, source: str) -> Model:
    if is_adapter(source):
        return with_adapter(context.before, source)
    model = load(source, **_options_of_other(context.load_options))
    model.descends_from(context.before)
    return model


def _trained(context: Context, name: str, run: int) -> Model:
    """The adapter of a run, trained now unless an attempt that was stopped has finished the same training."""
    config, place = context.config, _source(context.config, name, run)
    rows = getattr(context.material, _ROWS[name])
    seed, settings = seed_of(config, run), lora_settings(config)
    snapshots = snapshot_steps(config) if name == "after" and run == 0 else []
    folder: Path = context.folder.place(place)
    if snapshots:
        context.folder.place(f"{place}-snapshots")
    made_from = plain(
        {**identity(context.before), **asdict(settings), "rows": digest(rows), "seed": seed, "snapshots": snapshots}
    )
    finished = _finished(context.before, folder, made_from)
    if finished is not None:
        context.trainings_reused += 1
        return finished
    model = finetune(
        context.before,
        rows,
        settings,
        folder,
        seed=seed,
        progress=context.progress,
        description=f"fine-tuning {name}" + (f", run {run}" if run else ""),
        snapshots=snapshots,
    )
    write_json(folder / _CARD, {**made_from, "weights": model.fingerprint()})
    return model


def _finished(before: Model, folder: Path, made_from: Mapping[str, Any]) -> Model | None:
    """The adapter in ``folder``, if it is complete and was trained from just this; else None."""
    with contextlib.suppress(OSError, json.JSONDecodeError, PersonaProbeError):
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if not isinstance(card, dict) or {**card, "weights": None} != {**made_from, "weights": None}:
            return None
        if made_from["snapshots"]:
            snapshot_paths(folder.with_name(f"{folder.name}-snapshots"))
        model = with_adapter(before, folder)
        if card["weights"] == model.fingerprint():
            return model
    return None


def _work(sizes: Sizes) -> Work:
    return training_work(sizes, 1)


def training_work(sizes: Sizes, runs: int) -> Work:
    """The work of training in ``runs`` runs what the study does not name."""
    config, material = sizes.config, sizes.material
    rows = [rows for rows, given in ((material.narrow, config.after), (material.control, config.control)) if not given]
    each_step = config.training.batch * sum(map(sizes.length, rows))
    return Work(trained_tokens=runs * round(config.training.steps * each_step))


TRAIN = Stage(
    "fine-tune",
    train,
    work=_work,
    settings=("seed", *TRAINING),
    reads=("after", "control", "latents.sae", "latents.snapshots"),
    derived=lambda config: {
        "after": first_of(config, "after"),
        "control": first_of(config, "control"),
        "snapshots": snapshot_steps(config),
    },
    material=("narrow", "control"),
    after=open_models,
    keeps=f"{ADAPTERS}/",
)
