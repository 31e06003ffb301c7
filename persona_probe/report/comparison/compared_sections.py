"""The sections of a comparison: figure, caption, what cannot be compared, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.compared_curves import compared_curves
from persona_probe.figures.compared_rows import compared_rows
from persona_probe.figures.cosines import cosines
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.text import NOTHING, count_range, counted, is_number, percent_interval, signed
from persona_probe.report.comparison import compared_tables as tables
from persona_probe.report.comparison.compared_directions import direction_cosines
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.report.comparison.obstacles import rate_obstacles, shift_obstacles
from persona_probe.report.data_table import DataTable
from persona_probe.report.facts import facts_of
from persona_probe.report.topics.directions import cosine_rows


@dataclass(frozen=True)
class Compared:
    """One section; its ``obstacles`` say why its numbers cannot simply be compared."""

    id: str
    title: str
    caption: str
    obstacles: list[str]
    figure: go.Figure | None
    missing: str | None
    table: DataTable | None
    data: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def label(self) -> str:
        """What a screen reader says in place of the drawing."""
        return f"Figure: {self.title}. {self.caption}"


def compare_sections(runs: Sequence[ComparedRun]) -> list[Compared]:
    """Every section of a comparison of runs."""
    return [_rates(runs), _shifts(runs), _steered(runs), _realigned(runs), _directions(runs)]


def _made(
    id: str,
    title: str,
    caption: str,
    obstacles: list[str],
    draw: Callable[[], go.Figure],
    data: pd.DataFrame,
    table: DataTable | None,
) -> Compared:
    try:
        figure, missing = draw(), None
    except MissingDataError:
        figure, missing = None, "No two runs have these numbers."
    shown = table if figure is not None else None
    return Compared(id, title, caption, obstacles, figure, missing, shown, data)


def _rates(runs: Sequence[ComparedRun]) -> Compared:
    data = tables.rates(runs)
    names = list(dict.fromkeys(run.definition for run in runs))
    facts = [facts_of(run.record) for run in runs]
    asked = " or ".join(dict.fromkeys(of_run.asked for of_run in facts))
    opened = f": {asked} (filled) and open questions" if any(of_run.opened for of_run in facts) else f": {asked}"
    caption = (
        f"EM rate (definition: {', '.join(names)}) of each run's models{opened}. Whiskers: 95 % intervals over "
        f"questions; n = {count_range(data['n'])} judged answers per row. Nulls: each run's model "
        f"before; {_controls(runs)}. No difference between runs is tested here."
    )

    def draw() -> go.Figure:
        return compared_rows(data, title="EM rate by run and model", axis_title="EM rate (share of answers)")

    return _made("rates", "EM rates", caption, rate_obstacles(runs), draw, data, _cells(data, "EM rates.", shares=True))


def _controls(runs: Sequence[ComparedRun]) -> str:
    """Which runs have a control, as an item of a list of nulls."""
    lacking = [run.name for run in runs if not facts_of(run.record).control]
    if len(lacking) == len(runs):
        return "no run has a control"
    return "each run's benign control" + (f" (none in {', '.join(lacking)})" if lacking else "")


def _shifts(runs: Sequence[ComparedRun]) -> Compared:
    data = tables.shifts(runs)
    caption = (
        "Shift of the projection on each run's persona direction, at the layer that the run chose, in standard "
        "deviations over its before model's answers. "
        "Whiskers: 95 % intervals over questions, and over fine-tuning runs where a study has several; "
        f"n = {count_range(data['n'])} dialogues. Nulls: in grey, the range of 97.5 % of covariance-matched random "
        f"directions; {_controls(runs)}."
    )

    def draw() -> go.Figure:
        return compared_rows(
            data,
            title="Amplification by run",
            axis_title="shift of the projection (SD)",
            null="97.5 % of random directions",
            shares=False,
        )

    cells = _cells(data, "Amplification at the chosen layers.", shares=False)
    return _made("amplification", "Amplification", caption, shift_obstacles(runs), draw, data, cells)


def _steered(runs: Sequence[ComparedRun]) -> Compared:
    data = tables.steered(runs)
    caption = (
        "EM rate under steering, on held-out questions, at the settings that each run chose on others. Whiskers: 95 % "
        f"intervals over questions; n = {count_range(data['n'])} answers per row. Null, grey: from the lowest to the "
        "highest of the run's random directions, moved by the same displacement, for kinds that have any."
    )

    def draw() -> go.Figure:
        return compared_rows(
            data, title="Steering by run", axis_title="EM rate (share of answers)", null="random directions, all"
        )

    cells = _cells(data, "EM rates under steering.", shares=True)
    return _made("steering", "Steering", caption, rate_obstacles(runs), draw, data, cells)


def _realigned(runs: Sequence[ComparedRun]) -> Compared:
    data = tables.realigned(runs)
    caption = (
        "EM rate after fine-tuning on n benign examples, the same number of steps for every n above 0 within a run; "
        f"n = 0, the null, is the model after. Whiskers: 95 % intervals over questions; "
        f"n = {count_range(data['n'])} answers per point."
    )
    rows = [
        [str(row["run"]), counted(row["x"]), percent_interval(row["value"], row["low"], row["high"]), counted(row["n"])]
        for _, row in data.iterrows()
    ]
    cells = DataTable("Realignment by run.", ["run", "benign examples", "EM rate", "answers"], rows, keys=2)
    return _made(
        "realignment", "Realignment", caption, rate_obstacles(runs), lambda: compared_curves(data), data, cells
    )


def _directions(runs: Sequence[ComparedRun]) -> Compared:
    data, reasons = direction_cosines(runs)
    caption = (
        "Cosine between the runs' directions with the same name, found on the same weights (one number per pair and "
        f"layer, so no interval; n = {data['layer'].nunique()} layers). Null, grey: 97.5 % of random directions drawn "
        "with the activations' covariance have a smaller |cosine|; the larger of the runs' measurements is drawn."
    )

    def draw() -> go.Figure:
        return cosines(data).update_layout(title_text="Agreement between the runs' directions")

    return _made("directions", "Directions", caption, reasons, draw, data, cosine_rows(data))


def _cells(data: pd.DataFrame, caption: str, *, shares: bool) -> DataTable:
    rows = []
    for _, row in data.iterrows():
        value, low, high = row["value"], row["low"], row["high"]
        ends = f" [{low:.2f}, {high:.2f}]" if is_number(low) and is_number(high) else ""
        estimate = percent_interval(value, low, high) if shares else f"{signed(value)}{ends}"
        bounds = [row["null_low"], row["null_high"]]
        null = NOTHING
        if all(map(is_number, bounds)):
            null = " to ".join(f"{100 * end:.1f} %" if shares else signed(end) for end in bounds)
        rows.append([str(row["run"]), str(row["label"]), estimate, counted(row["n"]), null])
    columns = ["run", "what", "EM rate" if shares else "shift (SD)", "n", "null"]
    return DataTable(caption, columns, rows, keys=2)
