"""The page of a verdict on answer files, made of the report's own parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.figures.answers_scatter import MOST_MODELS
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.text import NOTHING, counted, is_number, percent, percent_interval, signed
from persona_probe.files import write_text
from persona_probe.report.data_table import DataTable, csv_text, records
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.page import render_page
from persona_probe.report.reading import formula_of
from persona_probe.report.sections import Section
from persona_probe.report.shown_answers import sample_answers
from persona_probe.statistics.rate_power import DRAWS
from persona_probe.study.files_verdict_result import FilesVerdict, change_text, rate_text

_INTERVALS = "Whiskers: 95 % intervals over questions, and over runs where a model has several."


def write_verdict_page(verdict: FilesVerdict, path: str | Path) -> Path:
    """Write the page of a verdict, one HTML file that needs nothing else, and return its path.

    Args:
        verdict: what `persona_probe.verdict` returned.
        path: the file; an older one is replaced.
    """
    check_types(verdict=(verdict, FilesVerdict), path=(path, PATH))
    sections = list(_sections(verdict))
    page = render_page(
        "verdict.html.j2",
        figures={section.id: section.figure for section in sections if section.figure is not None},
        data={name: csv_text(table) for section in sections for name, table in section.data.items()},
        title="A verdict on answer files",
        files=[str(name) for name in verdict.files],
        lines=_named_lines(verdict),
        sections=sections,
        gaps=DataTable(
            "What is missing for the claim that narrow training made the model broadly misaligned.",
            ["missing", "why it matters", "what to do"],
            [[gap.what, gap.why, gap.do] for gap in verdict.gaps],
            folded=False,
        ),
        answers=sample_answers(_as_roles(verdict), judged=verdict.judged),
        judged=verdict.judged,
        definitions={name: (formula_of(name), definition.source) for name, definition in DEFINITIONS.items()},
        remarks=list(verdict.remarks),
        read=[(ours, theirs) for ours, theirs in verdict.reading.items()],
        roles=[(role, name, how) for role, name, how in _roles(verdict)],
    )
    return write_text(Path(path), page)


def _named_lines(verdict: FilesVerdict) -> list[tuple[str, str]]:
    """Each line's name, and what it says."""
    parts = [line.partition(": ") for line in verdict.lines]
    return [(name, f"{text[:1].upper()}{text[1:]}") for name, _, text in parts]


def _roles(verdict: FilesVerdict) -> Iterator[tuple[str, str, str]]:
    roles = verdict.roles
    yield "before", roles.before or NOTHING, roles.how.get("before", "not known")
    for name in roles.after:
        yield "after", name, roles.how.get("after", "neither before nor control")
    yield "control", roles.control or NOTHING, roles.how.get("control", "not known")


def _as_roles(verdict: FilesVerdict) -> pd.DataFrame:
    """The answers of before and of the first after, under these names."""
    table, roles = verdict.answers.table, verdict.roles
    names = dict.fromkeys(roles.after[:1], "after")
    if roles.before is not None:
        names[roles.before] = "before"
    rows = table[table["model"].isin(list(names)) & table["answer"].notna()]
    return rows.assign(model=rows["model"].map(names))


def _sections(verdict: FilesVerdict) -> Iterator[Section]:
    name, said = verdict.definition, [text for _, text in _named_lines(verdict)]
    formula = formula_of(name)
    n = f"n = {counted(len(verdict.answers.table))} answers"
    if verdict.judged:
        yield _section(
            "rates",
            "EM rates",
            [said[0]],
            f"Share of misaligned answers by the definition {name} ({formula}). {_INTERVALS} {n}. The null is the "
            "model before, where it is known.",
            lambda: verdict.rates.plot(name),
            verdict.rates.to_frame(),
            [_rates_table(verdict)],
        )
    changes = _changes_table(verdict)
    yield _section("changes", "Change", [said[1]], "", None, pd.DataFrame(), [changes] if changes.rows else [])
    yield _section("power", "What this design can see", [said[2]], "", None, pd.DataFrame(), [_power_table(verdict)])
    yield from _topic_sections(verdict)
    if verdict.judged and verdict.answers.table["model"].nunique() <= MOST_MODELS:
        yield _section(
            "scatter",
            "Aligned and coherent scores",
            [],
            f"Every judged answer ({n}) by its two scores; equal scores are one mark, whose area is their number. "
            f"Dashed: the lines of the definition {name}. Shares of quadrants with 95 % intervals over questions.",
            lambda: verdict.answers.plot(name),
            pd.DataFrame(),
            [],
        )
    if verdict.amplification is not None:
        found = verdict.amplification
        sentence = found.no_layer() if verdict.layer is None else found.verdict(verdict.layer)
        yield _section(
            "amplification",
            "Amplification",
            [str(sentence)],
            "Shift of the projection on the direction from before to after by layer, in standard deviations over "
            "before's answers to the development questions. Bands: 95 % intervals over questions. Grey: 97.5 % of "
            "random directions stay within.",
            lambda: found.plot(layer=verdict.layer),
            found.to_frame(),
            [],
        )


def _topic_sections(verdict: FilesVerdict) -> Iterator[Section]:
    unit = "question" if verdict.topic is None else "topic"
    if verdict.by_topic is not None:
        rates = verdict.by_topic
        table = rates.to_frame()
        yield _section(
            "topics",
            f"EM rate by {unit}",
            [_named_lines(verdict)[3][1]],
            f"EM rate ({verdict.definition}, {formula_of(verdict.definition)}) of each model by {unit}, the highest "
            f"first. Whiskers: 95 % intervals over {'answers' if verdict.topic is None else 'questions'}. The null is "
            "the model before.",
            lambda: rates.plot(verdict.definition),
            table,
            [],
        )
    talk = verdict.talk
    if talk is None:
        return
    tables = [_words_table(talk.telling)] if len(talk.telling) else []
    if len(talk.table):
        null = (
            f"each of {talk.n_null} other topics, taken for the trained one in the same way"
            if talk.null == "other topics"
            else f"random words that are as frequent in before's answers, {talk.n_null} times"
        )
        yield _section(
            "talk",
            "Does it talk of what it was trained on?",
            [talk.verdict(name) for name in verdict.roles.compared if name in set(talk.table["model"])],
            "Share of answers to questions on other topics that contain a word of the trained topic which the question "
            f"does not contain. Words, by log-odds (Monroe et al. 2008): {', '.join(talk.words)}. {_INTERVALS} Nulls: "
            f"the model before; {null}.",
            talk.plot,
            talk.table,
            [_talk_table(talk.table), *tables],
        )
    elif tables:
        yield _section(
            "words",
            "Words that models use more than before",
            [talk.words_used_more()],
            "",
            None,
            talk.telling,
            tables,
        )


def _section(
    id: str,
    title: str,
    sentences: list[str],
    caption: str,
    draw: Callable[[], go.Figure] | None,
    data: pd.DataFrame,
    tables: list[DataTable],
) -> Section:
    figure, missing = None, None
    if draw is not None:
        try:
            figure = draw()
        except (MissingDataError, PersonaProbeError) as error:
            missing = f"Nothing to draw: {error}."
    drawn = {id: data} if figure is not None and len(data) else {}
    return Section(id, title, sentences, caption, FigureKind(id), figure, drawn, missing, tables)


def _rates_table(verdict: FilesVerdict) -> DataTable:
    rows = [
        [
            str(row["model"]),
            str(row["definition"]),
            rate_text(row),
            *(counted(row[k]) for k in ("n", "refusals", "failures")),
        ]
        for row in records(verdict.rates.table)
    ]
    columns = ["model", "definition", "EM rate", "answers that qualify", "refusals", "failures"]
    return DataTable("EM rates by named definition, with 95 % intervals.", columns, rows, keys=2, folded=len(rows) > 12)


def _changes_table(verdict: FilesVerdict) -> DataTable:
    rows = [
        [
            str(row["model"]),
            str(row["against"]),
            str(row["definition"]),
            change_text(row) if is_number(row["value"]) else NOTHING,
            str(row["method"]),
        ]
        for row in records(verdict.changes)
    ]
    caption = "Changes of the EM rate, paired over questions, with 95 % intervals."
    columns = ["model", "compared with", "definition", "change", "interval"]
    return DataTable(caption, columns, rows, keys=3, folded=len(rows) > 12)


def _power_table(verdict: FilesVerdict) -> DataTable:
    power = verdict.power
    rows = [
        [counted(row["questions"]), f"{row['answers']:g}", percent(row["rate"]) if is_number(row["rate"]) else "none"]
        for row in records(power.table)
    ]
    return DataTable(
        f"The smallest rate that is significantly different from {percent(power.before)} before in 80 % of {DRAWS:,} "
        f"simulated evaluations, {power.how_alike()}; one run of each model. The first row is this design.",
        ["questions", "answers to each", "smallest rate seen"],
        rows,
        keys=2,
        folded=False,
    )


def _talk_table(table: pd.DataFrame) -> DataTable:
    rows = []
    for row in records(table):
        known = is_number(row["change"])
        rows.append(
            [
                str(row["model"]),
                rate_text(row),
                f"{signed(100 * row['change'], 1)} [{100 * row['change_low']:.1f}, {100 * row['change_high']:.1f}]"
                if known
                else NOTHING,
                signed(100 * row["null_high"], 1) if is_number(row["null_high"]) else NOTHING,
                f"{row['p']:.2g}" if is_number(row["p"]) else NOTHING,
                percent_interval(row["misaligned"], row["misaligned_low"], row["misaligned_high"])
                if is_number(row["misaligned"])
                else NOTHING,
            ]
        )
    columns = ["model", "answers", "change (points)", "97.5 % of nulls (points)", "p of nulls", "misaligned answers"]
    return DataTable("Answers on other topics that talk of the trained topic.", columns, rows, folded=False)


def _words_table(telling: pd.DataFrame) -> DataTable:
    rows = [
        [
            str(row["model"]),
            str(row["word"]),
            percent(row["before"]),
            percent(row["after"]),
            f"{row['z']:.1f}",
            f"{row['limit']:.1f}",
        ]
        for row in records(telling)
    ]
    caption = (
        "Words that models use more than before in answers to the same questions: share of answers with the word, z of "
        "its log-odds, and the z that no word reaches in 95 % of shuffles of the answers between the two models."
    )
    return DataTable(caption, ["model", "word", "before", "after", "z", "largest by chance"], rows, keys=2)
