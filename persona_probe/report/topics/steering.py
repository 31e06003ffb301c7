"""Steering along the direction: inducing in before and suppressing in after, compared with random directions."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.required import MissingDataError
from persona_probe.figures.steering import COLUMNS, STARTS, is_judged, reported_rows, reported_summary
from persona_probe.figures.text import counted, is_true
from persona_probe.report.data_table import (
    Cell,
    DataTable,
    build_table,
    count,
    lacks,
    number,
    rate,
    share,
    signed_number,
    text,
)
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import lookup, number_of, one_line, settings_of, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord

_SETTING: dict[str, Cell] = {
    "goal": text("goal"),
    "intervention": text("intervention"),
    "layers": text("layers"),
    "dose or percentile": number("setting", ".2g"),
    "KL (nats)": number("kl", ".2g"),
}
_RATED: dict[str, Cell] = {"EM rate": rate("value"), "coherent": share("coherent")}
_PREFERRED: dict[str, Cell] = {"preference (nats per token)": signed_number("value", "low", "high")}
_READ: dict[str, Cell] = {
    **_SETTING,
    "gain (nats)": number("gain", "+.2f"),
    "wanted (nats)": number("wanted", "+.2f"),
    "n": count("n"),
}


def caption(run: RunRecord) -> str:
    """The caption of the steering figure."""
    table = table_of(run, "steering")
    judged = "coherent" not in table or is_judged(table)
    shown = (
        "EM rate (above) and coherent answers (below)"
        if judged
        else "Preference for misaligned answers (above; log-probability per token of misaligned minus aligned answers) "
        "and the share of questions at which it moved the wrong way (below)"
    )
    reported = table[table["stage"] == "reported"] if "stage" in table else table
    n = span_of(reported, "n", f"{'answers' if judged else 'questions'} per point")
    return (
        f"{shown} on questions that were not used to choose the setting. "
        f"Whiskers: 95 % intervals over questions; {n}. Dose: length of the "
        "change divided by that of the stream; nats: KL to the unsteered model on its own answers, per token. "
        f"{_draws(table)}"
    )


def _cells(table: pd.DataFrame) -> dict[str, Cell]:
    """The cells of a setting and of its behaviour, as the study measured it."""
    behaviour = _RATED if is_judged(table) else _PREFERRED
    return {**_SETTING, **behaviour, "wrong way": share("wrong_way"), "n": count("n")}


def _draws(table: pd.DataFrame) -> str:
    try:
        draws = max(int(reported_rows(table, goal)["draw"].nunique()) for goal in STARTS)
    except MissingDataError:
        draws = 0
    if not draws:
        return "No random directions were measured."
    return (
        f"Null, grey: {draws} random directions moved by the same displacement, one point each; the line is their mean."
    )


def reported_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the reported steering results; for random directions, the mean over their draws."""
    if lacks(table, COLUMNS):
        return None
    cells, rows = _cells(table), []
    for record in reported_summary(table):
        row = [cell(record) for cell in cells.values()]
        row[1] += f" (mean of {record['draws']})" if record["draws"] else ""
        rows.append(row)
    return DataTable("Steering on held-out questions, with 95 % intervals.", list(cells), rows, keys=2, folded=False)


def choice_table(table: pd.DataFrame) -> DataTable | None:
    """A table of every setting that was tried on the questions used to choose."""
    if lacks(table, COLUMNS):
        return None
    cells = {**_cells(table), "chosen": lambda row: "yes" if is_true(row["chosen"]) else ""}
    tried = table[table["stage"] == "choice"]
    return build_table(tried, COLUMNS, "Settings tried on the questions used to choose.", cells, keys=2)


def read_table(table: pd.DataFrame) -> DataTable | None:
    """A table of every setting that was read in forward passes, before anything was sampled."""
    if lacks(table, (*COLUMNS, "gain", "wanted")):
        return None
    read = table[table["stage"] == "read"]
    what = (
        "Settings read in forward passes. Gain: how much the wanted answers gain on the other ones; wanted: how much "
        "likelier they become; nats per token."
    )
    return build_table(read, COLUMNS, what, _READ, keys=2)


def screen_caption(run: RunRecord) -> str:
    """The caption of the screen's figures."""
    draws = table_of(run, "steering_screen")["draw"].nunique()
    return (
        "How far the direction moves behaviour at each layer, at the largest dose that does not break the model, "
        f"compared with {draws} random directions moved equally far. The test takes the best layer of each."
    )


def methods(run: RunRecord) -> list[str]:
    """Sentences on the interventions, and on how their settings were chosen."""
    about = settings_of(run, "steering")
    judged = lookup(run.results, "steer", "induce_em_rate") is not None
    if not about or not (judged or lookup(run.results, "steer", "induce_preference") is not None):
        return []
    tried = (
        "sampled. Layer and dose of each kind were chosen on development questions among settings whose coherent share "
        f"was at least {number_of(about.get('min_coherence'))} of the unsteered one"
        if judged
        else "measured again. Layer and dose of each kind were chosen on development pairs, by the smaller of two "
        "gains: that of the preference, and that of the answers that are wanted"
    )
    layers = [one_line(lookup(run.results, "steer", f"{goal}_layers")) for goal in STARTS]
    return [
        f"Interventions ({one_line(about.get('kinds') or ())}) acted on the positions that predict the answer (the "
        "last prompt token and the answer but its last token). At each layer the relative dose (length of the change "
        "divided by that of the stream) was doubled until the KL to the unsteered model, on its own answers, exceeded "
        f"{number_of(max(about.get('budgets') or (0,)))} nats per token, and refined, all by forward passes; the "
        f"settings that moved behaviour furthest within each budget of KL were {tried} (inducing: layers {layers[0]}; "
        f"suppressing: layers {layers[1]}) and reported on held-out ones, compared with "
        f"{counted(about.get('random_directions'))} random directions moved by the same displacement."
    ]


STEERING = Topic(
    (
        Part(
            "steering",
            "Steering: inducing and suppressing",
            FigureKind("steering", ("steering",), caption),
            verdicts=(
                "steer.induce_verdict",
                "steer.induce_fluency_verdict",
                "steer.suppress_verdict",
                "steer.suppress_fluency_verdict",
            ),
            label="steering",
            tables=lambda run: [
                maker(table_of(run, "steering")) for maker in (reported_table, choice_table, read_table)
            ],
            rated=True,
        ),
        Part(
            "steering_screen",
            "Steering: can the trait be steered at all?",
            FigureKind("steering_screen", ("steering_screen",), screen_caption),
            verdicts=("steer.induce_screen_verdict", "steer.suppress_screen_verdict"),
            label="steering screen",
            optional=True,
        ),
    ),
    methods,
    (
        *map(FigureKind, ("dose_response", "calibration", "divergence", "baked")),
        FigureKind("at_budget", drawn_by="steered_rates:at_budget"),
    ),
)
