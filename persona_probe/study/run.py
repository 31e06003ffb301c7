"""Runs or resumes a study: its stages in order, their tables, a manifest, and the report."""

from __future__ import annotations

import datetime
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from persona_probe.behaviour.judges.api_judge import ApiJudge
from persona_probe.behaviour.judges.judge import check_judge
from persona_probe.behaviour.judges.local_judge import LocalJudge
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import only_writer
from persona_probe.models.generation import generation_config
from persona_probe.models.loading.load import load, specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.stream.layers import LAYER_CONVENTION, resolve_layers
from persona_probe.report.run_page import render_report
from persona_probe.report.topics.all_topics import summary_lines
from persona_probe.runs.config import REAL_LANGUAGE, StudyConfig, sources_of
from persona_probe.runs.config_file import config_as_yaml
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.stage_record import judge_replies, versions
from persona_probe.study.context import Context
from persona_probe.study.executor import Executor, Local
from persona_probe.study.material import Material, gather
from persona_probe.study.pipeline import Pipeline, merged
from persona_probe.study.real_results import real_results
from persona_probe.study.sources import identity_of, optional_of, store_identity
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.latents import open_sae
from persona_probe.study.stages.order import STAGES
from persona_probe.study.stages.train import TRAIN, Tuned, check_models, seeds_of

if TYPE_CHECKING:
    from persona_probe.models.model import Model
    from persona_probe.runs.run import Run


def run_study(config: StudyConfig, out: str | Path, *, progress: bool = True, executor: Executor | None = None) -> Run:
    """Run a study in a folder, or resume it there; finished stages whose inputs are the same are reused.

    Tables are written when stages finish, and answers as soon as they are sampled, so an interrupted run resumes where
    it was stopped (only the latents stage starts again: it samples by itself). ``results.json``, ``manifest.json`` and
    ``report.html`` are written at the end.

    Args:
        config: the study.
        out: the run folder.
        progress: show progress bars.
        executor: where models sample and read texts (`RayCluster`); default in this process. Fine-tuning is always done
            in this process.

    Returns:
        The run, as `persona_probe.open_run` opens it.

    Raises:
        PersonaProbeError: for bad input (before anything is trained, if it can be known by then), or if another process
            runs a study in ``out``.
    """
    check_types(config=(config, StudyConfig), out=(out, PATH))
    from persona_probe.runs.run import open_run

    folder = RunFolder.open(out)
    context = _prepared(config, folder, progress, executor or Local())
    identity = identity_of(context.before, config)
    with only_writer(folder.path / "stages"):
        folder.write_text("study.yaml", config_as_yaml(config))
        parameters = footprint(specify(config.model, options=context.load_options)).parameters
        store_identity(folder, config, identity, parameters)
        pipeline = Pipeline(STAGES, context, identity, optional_of(config))
        if any(stage.judged for stage in pipeline.waiting()):
            check_judge(context.judge, needed=False)
        with tqdm(total=len(pipeline.stages) + 1, desc="study", unit="stage", disable=not progress) as bar:
            for name, reused in pipeline.run():
                bar.set_postfix_str(f"{name} (reused)" if reused else name)
                bar.update()
            bar.set_postfix_str("report")
            _close(context, pipeline)
            bar.update()
    return open_run(folder.path)


def _prepared(config: StudyConfig, folder: RunFolder, progress: bool, executor: Executor) -> Context:
    """The context of a study; raises on whatever can be refused before anything in the folder is changed."""
    material = gather(config)
    options = config.load_options()
    before = load(config.model, **options)
    if not before.template.exists:
        raise PersonaProbeError(
            f"{config.model}: its tokenizer has no chat template, so dialogues cannot be rendered; give one as "
            "loading.chat_template"
        )
    check_models(config, before, options)
    _check_texts(config, material, before)
    if isinstance(material.judge, LocalJudge | ApiJudge):
        material.judge.progress = progress
        if isinstance(material.judge, ApiJudge):
            material.judge.store_in(judge_replies(folder.path))
        material.judge.check()
    if config.steering.layers is not None:
        resolve_layers(config.steering.layers, before.n_layers)
    return Context(
        config,
        material,
        folder,
        {"before": before},
        material.judge,
        open_sae(config, before),
        progress=progress,
        executor=executor,
        load_options=options,
    )


def _check_texts(config: StudyConfig, material: Material, before: Model) -> None:
    """Raise if the model before cannot be given one of the study's texts, or is asked for more than it reads.

    Raises:
        PersonaProbeError: naming the dialogue.
    """
    new_tokens = config.sampling.max_new_tokens
    questions = [*material.development, *material.unseen, *material.open, *material.trained]
    longest = max(questions, key=lambda question: sum(len(message.content) for message in question.messages))
    prompts = [*material.trait_prompts, *material.default_prompts, *itertools.chain(*material.other_traits.values())]
    before.encode([*questions, *map(longest.with_system, prompts)], new_tokens=new_tokens)
    if rows := [*material.narrow, *material.control, *material.benign]:
        before.encode(rows)


def _close(context: Context, pipeline: Pipeline) -> None:
    """Write the files that are about all stages together."""
    config, folder, records = context.config, context.folder, pipeline.records
    results, notes = merged(records)
    if len({tuple(sorted(record.versions.items())) for record in records.values()}) > 1:
        notes.append("The stages of this run used different versions of libraries; manifest.json lists them.")
    seconds = {name: record.seconds for name, record in records.items()}
    results |= {
        "title": config.title,
        "subtitle": f"{config.model}, {_what(config)}",
        "definition": config.definition,
        "notes": notes,
        "seconds": sum(seconds.values()),
        "seconds_by_stage": seconds,
    }
    if config.texts.world == REAL_LANGUAGE:
        results["real"] = real_results(results, config.texts)
    results["summary"] = summary_lines(results)
    folder.write_json("manifest.json", _manifest(context, pipeline))
    folder.write_json("results.json", results)
    render_report(folder.path)


def _what(config: StudyConfig) -> str:
    """What the model before is compared with, in words."""
    texts = config.texts
    if config.after is not None:
        return f"compared with {', '.join(sources_of(config.after))}"
    return "narrow training on " + (
        f"{texts.persona} answers about {texts.topic}" if texts.world is not None else str(texts.narrow)
    )


def _manifest(context: Context, pipeline: Pipeline) -> dict[str, Any]:
    """What is needed to run the study again, and to know on what it ran."""
    now, records = datetime.datetime.now(datetime.UTC), pipeline.records
    further: list[Tuned] = pipeline.outcome(FURTHER.name) or []
    runs = [pipeline.outcome(TRAIN.name), *further]
    return {
        "config": context.config.model_dump(mode="json"),
        "seeds": {"study": context.config.seed, **({"fine-tuning": seeds} if (seeds := seeds_of(runs)) else {})},
        "versions": versions(),
        "models": {
            name: {
                "path": model.name,
                "weights_from": model.weights_from,
                "hash": model.fingerprint(),
                "chat_template_hash": model.template.hash(),
                "default_system_prompt": model.template.default_system_prompt,
                "template_remarks": model.template.remarks(),
                "generation": generation_config(model, context.sampling(context.config.seed)).to_diff_dict(),
                "device": str(model.device),
            }
            for name, model in context.models.items()
        },
        "further_runs": [
            {name: {"path": source, "hash": run.hashes[name]} for name, source in run.sources.items()}
            for run in further
        ],
        "judge": judge.describe() if isinstance(judge := context.material.judge, LocalJudge | ApiJudge) else None,
        "layer_convention": LAYER_CONVENTION,
        "started": min(record.started for record in records.values()),
        "finished": now.isoformat(timespec="seconds"),
        "seconds": sum(record.seconds for record in records.values()),
        "stages": {
            name: {
                "started": record.started,
                "seconds": record.seconds,
                "reused": record.reused,
                "measured": record.measured,
                "versions": record.versions,
                "inputs": record.inputs,
            }
            for name, record in records.items()
        },
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
