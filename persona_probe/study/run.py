"""A whole study: train-narrow, measure, find, track, compare, probe, steer, latents, realign, report."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import logging
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.load import load, specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.stream.layer_convention import LAYER_CONVENTION
from persona_probe.models.stream.residual_stream import resolve_layers
from persona_probe.report.html import render_report
from persona_probe.study.config import StudyConfig
from persona_probe.study.context import Context
from persona_probe.study.executor import Executor, Local
from persona_probe.study.material import gather
from persona_probe.study.run_folder import RunFolder
from persona_probe.study.stages.compare import compare
from persona_probe.study.stages.find import find
from persona_probe.study.stages.latents import latents, latents_realigned, open_sae
from persona_probe.study.stages.measure import measure
from persona_probe.study.stages.probe import probe
from persona_probe.study.stages.realign import realign
from persona_probe.study.stages.steer import steering
from persona_probe.study.stages.track import agreement, track
from persona_probe.study.stages.train import train
from persona_probe.study.workload import StageWork, workload

_log = logging.getLogger(__name__)
_VERSIONED = ("persona-probe", "torch", "transformers", "peft", "transformer-lens", "numpy", "scikit-learn", "plotly")
_STAGES = ("fine-tune", "measure", "find", "track", "compare", "probe", "steer", "latents", "realign", "report")


def run_study(
    config: StudyConfig, out: str | Path, *, progress: bool = True, executor: Executor | None = None
) -> dict[str, Any]:
    """Run a study and write its folder; returns what ``results.json`` holds.

    Tables are written as stages finish, so an interrupted run keeps its finished parts; ``results.json``,
    ``manifest.json`` and ``report.html`` appear when all is done.

    Args:
        config: the study.
        out: the run folder; results of an earlier run in it are removed first.
        progress: show bars.
        executor: where models sample and read texts (`RayCluster`); default here. Fine-tuning is always done here.

    Raises:
        PersonaProbeError: for bad input, before anything is trained where it can be known.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    material = gather(config)
    before = load(config.model, **config.load_options())
    if not before.template.exists:
        raise PersonaProbeError(f"{config.model}: its tokenizer has no chat template, so dialogues cannot be rendered")
    if config.steering.layers is not None:
        resolve_layers(config.steering.layers, before.n_layers)
    sae = open_sae(config, before)
    work = workload(config, material, before.template, before.n_layers)
    folder = _emptied(Path(out))
    context = Context(
        config, material, folder, {"before": before}, material.judge, progress=progress, executor=executor or Local()
    )
    seconds: dict[str, float] = {}
    with tqdm(total=len(_STAGES), desc="study", unit="stage", disable=not progress) as bar:

        @contextlib.contextmanager
        def stage(name: str) -> Iterator[None]:
            bar.set_postfix_str(name)
            begun = time.monotonic()
            yield
            seconds[name] = time.monotonic() - begun
            bar.update()

        with stage("fine-tune"):
            train(context)
        with stage("measure"):
            measure(context)
        with stage("find"):
            found = find(context)
        with stage("track"):
            tracked = track(context, found)
            agreement(context, tracked.layer)
        with stage("compare"):
            compare(context, found, tracked)
        with stage("probe"):
            probe(context, found, tracked.layer)
        with stage("steer"):
            steering(context, found)
        with stage("latents"):
            followed = latents(context, sae, found, tracked)
        with stage("realign"):
            realigned = realign(context, found, tracked)
            latents_realigned(context, sae, followed, tracked.texts, realigned)
        with stage("report"):
            context.results |= {
                "title": config.title,
                "subtitle": f"{config.model}, narrow training on {_what(config)}",
                "definition": config.definition,
                "notes": context.notes,
                "seconds": time.monotonic() - clock,
                "seconds_by_stage": seconds,
            }
            folder.write_json("manifest.json", _manifest(context, started, seconds, work))
            folder.write_json("results.json", context.results)
            render_report(folder.path)
    return context.results


def _what(config: StudyConfig) -> str:
    """The narrow data in words."""
    texts = config.texts
    return f"{texts.persona} answers about {texts.topic}" if texts.world is not None else str(texts.narrow)


def _emptied(path: Path) -> RunFolder:
    """A run folder without an earlier run's results; a folder with other files in it is refused."""
    ours = {"adapters", "directions", "tables", "results.json", "manifest.json", "report.html"}
    if path.exists() and not path.is_dir():
        raise PersonaProbeError(f"{path}: is a file; give a folder for the results")
    if path.is_dir():
        strangers = sorted(entry.name for entry in path.iterdir() if entry.name.removesuffix(".part") not in ours)
        if strangers:
            raise PersonaProbeError(
                f"{path}: holds {strangers[0]!r}, which no study wrote; give a new folder, so that nothing is lost"
            )
        for entry in path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return RunFolder(path)


def _manifest(
    context: Context, started: datetime.datetime, seconds: dict[str, float], work: list[StageWork]
) -> dict[str, Any]:
    """What is needed to run the study again, to know what it ran on, and to plan others by it."""
    return {
        "config": context.config.model_dump(mode="json"),
        "seeds": {"study": context.config.seed},
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED}
        | {"python": platform.python_version()},
        "models": {
            name: {
                "path": model.name,
                "hash": model.fingerprint(),
                "chat_template_hash": model.template.hash(),
                "default_system_prompt": model.template.default_system_prompt,
                "template_remarks": model.template.remarks(),
                "device": str(model.device),
            }
            for name, model in context.models.items()
        },
        "layer_convention": LAYER_CONVENTION,
        "started": started.isoformat(timespec="seconds"),
        "seconds": (datetime.datetime.now(datetime.UTC) - started).total_seconds(),
        "parameters": footprint(specify(context.config.model, options=context.config.load_options())).parameters,
        "work": {stage.stage: {"tokens": stage.tokens, "seconds": seconds[stage.stage]} for stage in work},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
