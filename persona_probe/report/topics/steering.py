"""Steering along the direction: inducing in before and suppressing in after, compared with random directions."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.required import MissingDataError
from persona_probe.figures.steering import COLUMNS, STARTS, reported_rows, reported_summary
from persona_probe.figures.text import counted, is_true
from persona_probe.report.data_table import Cell, DataTable, build_table, count, lacks, number, rate, share, text
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import lookup, number_of, one_line, settings_of, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord

_CELLS: dict[str, Cell] = {
    "goal": text("goal"),
    "intervention": text("intervention"),
    "layers": text("layers"),
    "dose or percentile": number("setting", ".2g"),
    "KL (nats)": number("kl", ".2g"),
    "EM rate": rate("value"),
    "coherent": share("coherent"),
    "wrong way": share("wrong_way"),
    "n": count("n"),
}
_READ: dict[str, Cell] = {
    "goal": text("goal"),
    "intervention": text("intervention"),
    "layers": text("layers"),
    "dose or percentile": number("setting", ".2g"),
    "KL (nats)": number("kl", ".2g"),
    "gain (nats)": number("gain", "+.2f"),
    "wanted (nats)": number("wanted", "+.2f"),
    "n": count("n"),
}


def caption(run: RunRecord) -> str:
    """The caption of the steering figure."""
    table = table_of(run, "steering")
    return (
        "EM rate (above) and coherent answers (below) on questions that were not used to choose the setting. "
        f"Whiskers: 95 % intervals over questions; {span_of(table, 'n', 'answers per point')}. Dose: length of the "
        "change divided by that of the stream; nats: KL to the unsteered model on its own answers, per token. "
        f"{_draws(table)}"
    )


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
    rows = []
    for row in reported_summary(table):
        cells = [cell(row) for cell in _CELLS.values()]
        cells[1] += f" (mean of {row['draws']})" if row["draws"] else ""
        rows.append(cells)
    return DataTable("Steering on held-out questions, with 95 % intervals.", list(_CELLS), rows, keys=2, folded=False)


def choice_table(table: pd.DataFrame) -> DataTable | None:
    """A table of every setting that was tried on the questions used to choose."""
    if lacks(table, COLUMNS):
        return None
    cells = {**_CELLS, "chosen": lambda row: "yes" if is_true(row["chosen"]) else ""}
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
    if not about or lookup(run.results, "steer", "induce_em_rate") is None:
        return []
    layers = [one_line(lookup(run.results, "steer", f"{goal}_layers")) for goal in STARTS]
    return [
        f"Interventions ({one_line(about.get('kinds') or ())}) acted on the positions that predict the answer (the "
        "last prompt token and the answer but its last token). At each layer the relative dose (length of the change "
        "divided by that of the stream) was doubled until the KL to the unsteered model, on its own answers, exceeded "
        f"{number_of(max(about.get('budgets') or (0,)))} nats per token, and refined, all by forward passes; the "
        "settings that moved behaviour furthest within each budget of KL were sampled. Layer and dose of each kind "
        "were chosen on development questions among settings whose coherent share was at least "
        f"{number_of(about.get('min_coherence'))} of the unsteered one (inducing: layers {layers[0]}; suppressing: "
        f"layers {layers[1]}) and reported on held-out ones, compared with "
        f"{counted(about.get('random_directions'))} random directions moved by the same "
        "displacement."
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
