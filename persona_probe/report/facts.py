"""What a run did and did not do, read from its record, so that no text claims more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.figures.em_rates import UNSEEN
from persona_probe.figures.text import visible
from persona_probe.report.reading import lookup, one_line
from persona_probe.runs.record import RunRecord

ORACLE = "persona-world"
"""The name of Persona World's judge, and of Persona World."""


@dataclass(frozen=True)
class Facts:
    """What the texts about a run may say.

    Attributes:
        recorded: whether the record says how the run was set up at all.
        after: the model after that the study names, or its runs; None if it was fine-tuned here, or the record does not
            say.
        trained: whether the record says that the model after was fine-tuned here.
        control: whether there is a control.
        control_given: the control that the study names; None if it was fine-tuned here.
        n_runs: how many fine-tuning runs there are of each condition; None if the record does not say.
        realigned: whether realignment was measured.
        prefers: whether preference was measured.
        topic: the topic of narrow training in Persona World; None for other questions, or if the record does not say.
        topics: whether the questions have topics.
        opened: whether open questions were asked.
        judge: the name of the judge; None if there was none.
        judge_model: the local model that judged, as the study names it.
        judge_prompts: the file of its prompts; None for the package's prompts.
        judge_named: whether the study names a judge at all, even one that could not read the answers.
    """

    recorded: bool = False
    after: str | None = None
    trained: bool = False
    control: bool = False
    control_given: str | None = None
    n_runs: int | None = None
    realigned: bool = False
    prefers: bool = False
    topic: str | None = None
    topics: bool = False
    opened: bool = False
    judge: str | None = None
    judge_model: str | None = None
    judge_prompts: str | None = None
    judge_named: bool = True

    @property
    def asked(self) -> str:
        """The name of the reported questions in figures and tables."""
        if self.topic is None:
            return "reported questions"
        return UNSEEN if self.trained else f"topics other than {self.topic}"

    @property
    def on_asked(self) -> str:
        """Where rates were measured, in a sentence."""
        if self.topic is None:
            return "on the reported questions"
        return "on topics the adapter never saw" if self.trained else f"on topics other than {self.topic}"

    @property
    def units(self) -> str:
        """The units that are split when something is chosen or trained on some and tested on others."""
        return "topics" if self.topics else "questions"

    @property
    def activations_over(self) -> str:
        """What the intervals of activations are over."""
        return "questions" if self.n_runs in (None, 1) else f"questions and {self.n_runs} fine-tuning runs"

    @property
    def per_run(self) -> str:
        """What a number of texts counts, where it is larger than the number of texts."""
        return "" if self.n_runs in (None, 1) else ", each counted once per run"

    @property
    def of_which_runs(self) -> str:
        """Which numbers are of all fine-tuning runs and which of the first; empty if there is only one."""
        if self.n_runs in (None, 1):
            return ""
        seeds = ", with different seeds" if self.trained else ""
        return (
            f"There are {self.n_runs} fine-tuning runs of {'each condition' if self.control else 'after'}{seeds}. "
            f"Amplification, {'preference, ' * self.prefers}where the models lie, and the comparison of finders are "
            "over all of them; everything else is of the first run unless it says otherwise."
        )

    @property
    def left_over(self) -> str:
        """Where realignment was measured, in a sentence."""
        return "on topics that gave no example" if self.topic is not None else "on the reported questions"

    @property
    def oracle(self) -> bool:
        """Whether the judge was Persona World's oracle."""
        return self.judge == ORACLE

    @property
    def unjudged(self) -> str:
        """Why there is no EM rate, if there is none."""
        return "No judge applies to this model's answers" if self.judge_named else "This study names no judge"


def facts_of(run: RunRecord) -> Facts:
    """The facts of a run; what its record does not say is not claimed."""
    config, texts = _mapping(run.manifest, "config"), _mapping(run.manifest, "config", "texts")
    recorded = bool(texts)
    after, control = (_text(config.get(name)) for name in ("after", "control"))
    world = texts.get("world") == ORACLE
    judge = config.get("judge", ORACLE)
    local = judge if isinstance(judge, Mapping) else {}
    return Facts(
        recorded=recorded,
        after=after,
        trained=recorded and after is None,
        control=_has_control(run),
        control_given=control,
        n_runs=_runs(run),
        realigned=_has_realignment(run),
        prefers=not run.tables.get("preference", pd.DataFrame()).empty,
        topic=_text(texts.get("topic")) if world else None,
        topics=world or _have_topics(run.tables.get("answers", pd.DataFrame())),
        opened=_asked_open(run),
        judge=None if run.judge is None else visible(run.judge),
        judge_model=_text(local.get("model")),
        judge_prompts=_text(local.get("prompts")),
        judge_named=judge is not None,
    )


def _runs(run: RunRecord) -> int | None:
    table = run.tables.get("amplification", pd.DataFrame())
    counts = pd.to_numeric(table["n_runs"], errors="coerce").dropna() if "n_runs" in table else pd.Series()
    return None if counts.empty else int(counts.max())


def _has_control(run: RunRecord) -> bool:
    if lookup(run.manifest, "models", "control") is not None:
        return True
    tables = (run.tables.get(name, pd.DataFrame()) for name in ("em_rates", "amplification"))
    return any("model" in table and bool((table["model"] == "control").any()) for table in tables)


def _has_realignment(run: RunRecord) -> bool:
    return not run.tables.get("realignment", pd.DataFrame()).empty or bool(lookup(run.results, "realign", "curve"))


def _have_topics(answers: pd.DataFrame) -> bool:
    return "group" in answers and len(set(answers["group"].dropna())) > 1


def _asked_open(run: RunRecord) -> bool:
    table = run.tables.get("em_rates", pd.DataFrame())
    return "questions" in table and bool((table["questions"] == "open").any())


def _mapping(manifest: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    section = lookup(manifest, *keys)
    return section if isinstance(section, Mapping) else {}


def _text(value: object) -> str | None:
    return None if value is None else one_line(value)
