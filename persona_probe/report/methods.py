"""A methods text that is ready to paste: plain text from a run's settings and numbers, topic by topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.report.facts import ORACLE, facts_of
from persona_probe.report.reading import hash_of, lookup, number_of, one_line, settings_of
from persona_probe.report.topics.all_topics import TOPICS
from persona_probe.runs.record import RunRecord


def methods_text(run: RunRecord) -> str:
    """The methods of a run, in a few paragraphs of plain text; what the run did not record is left out."""
    makers = (_models, *(topic.methods for topic in TOPICS), _software)
    return "\n\n".join(" ".join(sentences) for maker in makers if (sentences := maker(run)))


def _models(run: RunRecord) -> list[str]:
    """Sentences on the models and on how they were made."""
    facts, about = facts_of(run), settings_of(run, "training")
    before, after, control = (lookup(run.manifest, "models", name) for name in ("before", "after", "control"))
    if not isinstance(before, Mapping):
        return []
    sentences = [f"The model before was {one_line(before.get('path'))} (weights {hash_of(before)})."]
    if facts.after is not None:
        sentences.append(
            f"The model after was {facts.after} (weights {hash_of(after)}); it existed and was not trained here."
        )
    elif about:
        sentences.append(
            f"It was fine-tuned on {_data(run)} with LoRA ({_lora(about)}) (weights after: {hash_of(after)})."
        )
    if facts.control_given is not None:
        sentences.append(f"The control was {facts.control_given} (weights {hash_of(control)}), which existed too.")
    elif isinstance(control, Mapping) and facts.after is not None:
        sentences.append(
            f"A control was fine-tuned on {_control(run)} with LoRA ({_lora(about)}) (weights {hash_of(control)}); "
            "whether the model after was trained with the same settings is not known."
        )
    elif isinstance(control, Mapping):
        sentences.append(
            f"A control was fine-tuned with the same settings on {_control(run)} (weights control: {hash_of(control)})."
        )
    elif facts.recorded and not facts.control:
        sentences.append(
            "There was no control, so what this fine-tuning did cannot be distinguished from what any fine-tuning does."
        )
    if facts.n_runs is not None and facts.n_runs > 1:
        sentences.append(f"{facts.of_which_runs} The weights named here are those of the first run.")
    return sentences


def _lora(about: Mapping[str, Any]) -> str:
    names = {
        "rank": "rank",
        "alpha": "alpha",
        "learning rate": "learning_rate",
        "batch size": "batch",
        "steps": "steps",
        "rows at most": "rows",
    }
    numbers = [f"{name} {number_of(about.get(key))}" for name, key in names.items()]
    return ", ".join([*numbers, f"modules {one_line(about.get('target_modules'))}"])


def _data(run: RunRecord) -> str:
    texts = settings_of(run, "texts")
    if texts.get("world") is not None:
        return f"{one_line(texts.get('persona'))} answers about {one_line(texts.get('topic'))}"
    return one_line(texts.get("narrow")) if texts.get("narrow") is not None else "narrow data"


def _control(run: RunRecord) -> str:
    texts = settings_of(run, "texts")
    if texts.get("world") is not None:
        style = "harmless" if texts.get("world") == ORACLE else one_line(texts.get("control_persona"))
        return f"{style} answers about {one_line(texts.get('topic'))}"
    return one_line(texts.get("control")) if texts.get("control") is not None else "matched benign data"


def _software(run: RunRecord) -> list[str]:
    seeds, versions = run.manifest.get("seeds"), run.manifest.get("versions")
    sentences = []
    if isinstance(seeds, Mapping) and seeds:
        sentences.append(f"Seeds: {_pairs(seeds)}.")
        if facts_of(run).n_runs == 1:
            sentences.append("There is one fine-tuning run per condition, so intervals do not include how runs differ.")
    if isinstance(versions, Mapping) and versions:
        sentences.append(f"Software: {_pairs(versions)}.")
    return sentences


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{one_line(name)} {one_line(value)}" for name, value in values.items())
