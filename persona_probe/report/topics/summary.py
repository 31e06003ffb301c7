"""The opening of the report: the main figure, of EM rates, amplification, steering and realignment."""

from __future__ import annotations

from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import definition_of, span_of, table_of
from persona_probe.report.topics.amplification import trust
from persona_probe.report.topics.behaviour import reported_rates
from persona_probe.report.topics.realignment import drawn
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def caption(run: RunRecord) -> str:
    """The caption, with a sentence on each panel that the run can fill."""
    facts = facts_of(run)
    opened = " and on open questions" if facts.opened else ""
    sentences = []
    if run.judge is not None:
        sentences.append(f"(a) EM rate ({definition_of(run)}) of each model {facts.on_asked}{opened}.")
    elif facts.prefers:
        sentences.append(
            "(a) Log-probability per token of misaligned minus aligned answers, for each model: on content pairs, on "
            "the same answers after other questions"
            + (", and on style nulls." if table_of(run, "preference")["kind"].eq("style").any() else ".")
        )
    sentences.append(
        "(b) Shift of the projection on the persona direction by layer; grey: the range of 97.5 % of random directions"
        f"{f'; {known}' if (known := trust(run)) else ''}."
    )
    if not table_of(run, "steering").empty:
        measured = "EM rate and coherence" if run.judge else "Preference"
        sentences.append(
            f"(c) {measured} under steering on held-out questions, compared with random directions moved by the same "
            "displacement."
        )
    behaviour, projected = drawn(run)
    if facts.realigned and (behaviour or projected):
        both = f"{behaviour} and projection" if projected else behaviour
        sentences.append(f"(d) {both if behaviour else 'Projection'} after fine-tuning on n benign examples.")
    n = f"; {span_of(reported_rates(run, trained=False), 'n', 'judged answers per rate in (a)')}" if run.judge else ""
    sentences.append(f"Whiskers and bands are 95 % intervals{n}.")
    if not facts.control:
        sentences.append("There is no control.")
    if run.judge is None and not facts.prefers:
        sentences.append(f"{facts.unjudged}, and rates need one: panels that show only rates are left empty.")
    return " ".join(sentences)


SUMMARY = Topic(
    (
        Part(
            "summary",
            "In brief",
            FigureKind(
                "summary",
                ("em_rates", "amplification", "steering", "realignment", "preference"),
                caption,
                settle=lambda run: {"definition": definition_of(run), "asked": facts_of(run).asked},
            ),
        ),
    ),
    more_figures=(FigureKind("compared_rows"), FigureKind("compared_curves")),
)
