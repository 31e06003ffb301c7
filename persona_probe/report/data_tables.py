"""The numbers behind each figure as rows of text: what a screen reader, a printout and a careful reader use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.figures import amplification as amplification_figure
from persona_probe.figures import cosines as cosines_figure
from persona_probe.figures import em_rates as em_figure
from persona_probe.figures import finders as finders_figure
from persona_probe.figures import latents as latents_figure
from persona_probe.figures import persona_shares as shares_figure
from persona_probe.figures import probe as probe_figure
from persona_probe.figures import realignment as realignment_figure
from persona_probe.figures import steering as steering_figure
from persona_probe.figures import trajectory as trajectory_figure
from persona_probe.figures.text import NOTHING, counted, is_number, is_true, percent, percent_interval, signed

Row = Mapping[str, Any]
ISOTROPIC = "isotropic, 97.5 % (SD)"


@dataclass(frozen=True)
class DataTable:
    """A captioned table; the first ``keys`` cells of a row are its headings."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    keys: int = 1
    folded: bool = True


def _build(
    table: pd.DataFrame,
    needs: tuple[str, ...],
    caption: str,
    cells: Mapping[str, Callable[[Row], str]],
    *,
    keys: int = 1,
    folded: bool = True,
) -> DataTable | None:
    """One row of text for each row of ``table``; None where the table cannot fill one."""
    if table.empty or any(name not in table.columns for name in needs):
        return None
    rows = [[cell(row) for cell in cells.values()] for row in _records(table)]
    return DataTable(caption, list(cells), rows, keys=keys, folded=folded)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: NOTHING if pd.isna(row[name]) else str(row[name])


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: counted(row[name])


def _share(name: str) -> Callable[[Row], str]:
    return lambda row: percent(row[name]) if is_number(row[name]) else NOTHING


def _number(name: str, form: str) -> Callable[[Row], str]:
    return lambda row: format(row[name], form) if is_number(row[name]) else NOTHING


def _where_measured(table: pd.DataFrame, **titles: str) -> dict[str, Callable[[Row], str]]:
    """Cells of the columns that the table has, by title."""
    return {title: _number(column, ".2f") for column, title in titles.items() if column in table}


def _signed(name: str, low: str | None = None, high: str | None = None) -> Callable[[Row], str]:
    return lambda row: signed_interval(row, name, low, high)


def signed_interval(row: Row, name: str, low: str | None = None, high: str | None = None) -> str:
    """A number with its sign, and its interval where both ends are there: ``+2.90 [2.75, 3.08]``."""
    if not is_number(row[name]):
        return NOTHING
    ends = [row[end] for end in (low, high) if end is not None]
    interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if len(ends) == 2 and all(map(is_number, ends)) else ""
    return signed(row[name]) + interval


def _rate(name: str) -> Callable[[Row], str]:
    return lambda row: percent_interval(row[name], row["low"], row["high"]) if is_number(row[name]) else NOTHING


def em_rates(table: pd.DataFrame, *, asked: str = em_figure.UNSEEN) -> DataTable | None:
    """Every definition beside every other, for each model and question set; ``asked``: the reported ones' name."""
    needs = em_figure.COLUMNS
    if table.empty or any(name not in table.columns for name in needs):
        return None
    known = [name for name in em_figure.DEFINITIONS if (table["definition"] == name).any()]
    rows = []
    for model in em_figure.MODELS:
        for questions in em_figure.QUESTIONS:
            own = table[(table["model"] == model) & (table["questions"] == questions)].set_index("definition")
            if own.empty:
                continue
            found = {str(row["definition"]): row for row in _records(own.reset_index())}
            rates = [
                f"{_rate('value')(found[name])}, n = {_count('n')(found[name])}" if name in found else NOTHING
                for name in known
            ]
            first = next(iter(found.values()))
            rows.append(
                [
                    model,
                    em_figure.called(questions, asked),
                    *rates,
                    _count("refusals")(first),
                    _count("failures")(first),
                ]
            )
    caption = "EM rate by named definition, with 95 % intervals; failures are answers that the judge could not score."
    columns = ["model", "questions", *known, "refusals", "failures"]
    return DataTable(caption, columns, rows, keys=2, folded=False)


def persona_shares(table: pd.DataFrame) -> DataTable | None:
    """Share of answers by model and persona."""
    cells = {"model": _text("model"), "persona": _text("persona"), "share": _rate("share"), "n": _count("n")}
    return _build(table, shares_figure.COLUMNS, "Persona shares, with 95 % intervals.", cells, keys=2)


def cosines(table: pd.DataFrame) -> DataTable | None:
    """Cosine of each pair at each layer."""
    cells = {
        "first": _text("first"),
        "second": _text("second"),
        "layer": _count("layer"),
        "cosine": _number("cosine", "+.3f"),
        "random |cosine|, 97.5 %": _number("null_high", ".3f"),
    }
    return _build(table, cosines_figure.COLUMNS, "Cosines between directions.", cells, keys=3)


def amplification(table: pd.DataFrame) -> DataTable | None:
    """Shift by layer and model, with nulls and specificity."""
    cells = {
        "layer": lambda row: f"{row['layer']:.0f}{' (chosen)' if is_true(row['chosen']) else ''}",
        "model": _text("model"),
        "shift (residual units)": _signed("shift"),
        "shift (SD)": _signed("shift_sd", "low_sd", "high_sd"),
        "random, 97.5 % (SD)": _number("random_sd", ".2f"),
        **_where_measured(
            table,
            isotropic_sd=ISOTROPIC,
            shuffled_sd="shuffled labels, 97.5 % (SD)",
            other_traits_sd="other traits (SD)",
            p_corrected="p, corrected",
            detectable_sd="detectable in one uncorrected test (SD)",
        ),
        "specificity": _number("specificity", ".1f"),
    }
    return _build(table, amplification_figure.COLUMNS, "Amplification, with 95 % intervals.", cells, keys=2)


def finders(table: pd.DataFrame) -> DataTable | None:
    """Every finder at every layer."""
    cells = {
        "finder": _text("finder"),
        "layer": lambda row: f"{row['layer']:.0f}{' (chosen)' if is_true(row['chosen']) else ''}",
        "AUROC, held out": _number("separation", ".3f"),
        "shift (SD)": _signed("shift_sd", "low_sd", "high_sd"),
        "control (SD)": _signed("control_shift_sd"),
        "random, 97.5 % (SD)": _number("random_sd", ".2f"),
        **_where_measured(table, isotropic_sd=ISOTROPIC),
        "specificity": _number("specificity", ".1f"),
        "what it comes to": _text("finding"),
    }
    columns = (*finders_figure.COLUMNS, "finding")
    return _build(table, columns, "Finders head to head, with 95 % intervals.", cells, keys=2)


def probe(table: pd.DataFrame) -> DataTable | None:
    """AUROC by layer and baseline."""

    def auroc(row: Row) -> str:
        interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if is_number(row["low"]) and is_number(row["high"]) else ""
        return f"{row['auroc']:.3f}{interval}" if is_number(row["auroc"]) else NOTHING

    cells = {"baseline": _text("baseline"), "layer": _count("layer"), "AUROC": auroc}
    return _build(table, probe_figure.COLUMNS, "AUROC on what was not trained on, with 95 % intervals.", cells, keys=2)


STEERING_CELLS: dict[str, Callable[[Row], str]] = {
    "goal": _text("goal"),
    "intervention": _text("intervention"),
    "layers": _text("layers"),
    "setting": _number("setting", "g"),
    "EM rate": _rate("value"),
    "coherent": _share("coherent"),
    "n": _count("n"),
}


def steering(table: pd.DataFrame) -> DataTable | None:
    """The reported steering results; random directions as the mean over their draws."""
    needs = steering_figure.COLUMNS
    if table.empty or any(name not in table.columns for name in needs):
        return None
    rows = []
    for row in steering_figure.reported_summary(table):
        cells = [cell(row) for cell in STEERING_CELLS.values()]
        draws = row["draws"]
        cells[1] += f" (mean of {draws})" if draws else ""
        rows.append(cells)
    return DataTable(
        "Steering on held-out questions, with 95 % intervals.", list(STEERING_CELLS), rows, keys=2, folded=False
    )


def steering_choice(table: pd.DataFrame) -> DataTable | None:
    """Every setting that was tried on the questions used to choose."""
    needs = steering_figure.COLUMNS
    if table.empty or any(name not in table.columns for name in needs):
        return None
    tried = table[table["stage"] == "choice"]
    cells = {**STEERING_CELLS, "chosen": lambda row: "yes" if is_true(row["chosen"]) else ""}
    return _build(tried, needs, "Settings tried on the questions used to choose.", cells, keys=2)


def realignment(table: pd.DataFrame) -> DataTable | None:
    """EM rate, coherence and projection by number of benign examples."""
    cells = {
        "benign examples": _count("n"),
        "EM rate": _rate("value"),
        "coherent": _share("coherent"),
        "projection (SD)": _signed("projection_sd"),
        "answers": _count("rows"),
    }
    needs = realignment_figure.COLUMNS
    return _build(table, needs, "Realignment, with 95 % intervals.", cells, folded=False)


def latent_effects(table: pd.DataFrame) -> DataTable | None:
    """What steering each latent does to the EM rate, beside matched latents."""

    def points(name: str, low: str, high: str) -> Callable[[Row], str]:
        return lambda row: latents_figure.points(row, (name, low, high))

    cells = {
        "latent": _text("latent"),
        **({"goal": _text("goal")} if "goal" in table else {}),
        "change of the EM rate (percentage points)": points("effect", "effect_low", "effect_high"),
        "matched latents": points("null_effect", "null_low", "null_high"),
    }
    caption = "Effects of steering single latents, with 95 % intervals."
    return _build(table, latents_figure.EFFECT_COLUMNS, caption, cells)


def latent_course(table: pd.DataFrame) -> DataTable | None:
    """Latents and the EM rate, step by step."""

    def value(row: Row) -> str:
        if row["latent"] < 0:
            return percent_interval(row["value"], row["low"], row["high"]) if is_number(row["value"]) else NOTHING
        return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"

    cells = {"series": _text("series"), "step": _number("step", "g"), "value": value, "n": _count("n")}
    caption = "Mean activation of latents, and the EM rate, with 95 % intervals."
    return _build(table, trajectory_figure.COLUMNS, caption, cells, keys=2)
