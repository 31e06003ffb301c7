"""The latents of a study as a table to search and sort; its rows open to a card with what each latent stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from persona_probe.figures.highlighting import highlight, shown_activation, shown_token
from persona_probe.figures.text import NOTHING, counted, is_number, percent, signed
from persona_probe.report.data_table import Row, lacks, records, signed_interval

SHOWN = 200
"""The greatest number of rows without a card: a page with every latent of a large SAE would not open."""
VALUES = 5
"""How many values of a label a card lists; the best is the first."""
NEURONPEDIA = "https://www.neuronpedia.org/"
NEEDS = ("latent", "finding", "before", "after", "change_sd", "low_sd", "high_sd", "control_sd")


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the key by which it is sorted (empty: last)."""

    text: str
    key: str


@dataclass(frozen=True)
class Card:
    """What a row opens to; each of the ``examples`` is a heading and the shaded tokens."""

    facts: list[tuple[str, str]]
    examples: list[tuple[str, Markup]]
    link: str | None


@dataclass(frozen=True)
class LatentRow:
    """One latent: its cells (the first is its number) and, if it was described, its card."""

    latent: int
    cells: list[Cell]
    card: Card | None


@dataclass(frozen=True)
class LatentBrowser:
    """The table: ``columns`` are titles, and whether each is sorted as numbers."""

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[LatentRow]


def build_browser(
    table: pd.DataFrame, cards: Sequence[Mapping[str, Any]], *, shown: int = SHOWN
) -> LatentBrowser | None:
    """The table of a study's latents with their cards; None if ``table`` has no rows or lacks a column.

    Args:
        table: one row per latent (`LatentTable`); the one that moved furthest is the first.
        cards: records of `LatentDescriptions`, in any order and for any of the latents.
        shown: the greatest number of latents without a card.
    """
    if lacks(table, NEEDS):
        return None
    by_latent = {int(card["latent"]): card for card in cards if is_number(card.get("latent"))}
    described = table["latent"].isin(list(by_latent))
    rows = [
        LatentRow(int(row["latent"]), _cells(row, by_latent, bool(cards)), _card(by_latent.get(int(row["latent"]))))
        for row in records(table[described | (table.index.isin(table.index[:shown]))])
    ]
    caption = f"SAE latents with 95 % intervals, the one that moved furthest first: {counted(len(rows))}"
    caption += f" of {counted(len(table))}; the run's tables hold all" if len(rows) < len(table) else " in all"
    described_note = f"; {counted(sum(row.card is not None for row in rows))} open to what they stand for"
    return LatentBrowser(caption + (described_note if by_latent else "") + ".", _columns(bool(cards)), rows)


def _columns(with_cards: bool) -> list[tuple[str, bool]]:
    numbers = ["change (SD)", "control (SD)", "specificity", "before", "after", "active before", "active after", "q"]
    titles = [("latent", True), ("finding", False), *((title, True) for title in numbers)]
    return [*titles, ("fires most for", False)] if with_cards else titles


def _cells(row: Row, cards: Mapping[int, Mapping[str, Any]], with_cards: bool) -> list[Cell]:
    latent = int(row["latent"])
    cells = [
        Cell(str(latent), str(latent)),
        Cell(str(row["finding"]), str(row["finding"])),
        Cell(signed_interval(row, "change_sd", "low_sd", "high_sd"), _key(row["change_sd"])),
        _number(row, "control_sd", signed),
        _number(row, "specificity", lambda value: f"{value:.1f}"),
        _number(row, "before", shown_activation),
        _number(row, "after", shown_activation),
        _number(row, "firing_before", percent),
        _number(row, "firing_after", percent),
        _number(row, "q", lambda value: f"{value:.2g}"),
    ]
    if with_cards:
        best = _ranked(cards.get(latent, {}))[:1]
        label = f"{best[0]['label']} {best[0]['value']} ({best[0]['auroc']:.2f})" if best else ""
        cells.append(Cell(label or NOTHING, label))
    return cells


def _number(row: Row, name: str, form: Any) -> Cell:
    value = row.get(name)
    return Cell(form(value) if is_number(value) else NOTHING, _key(value))


def _key(value: object) -> str:
    return repr(float(value)) if is_number(value) else ""


def _card(card: Mapping[str, Any] | None) -> Card | None:
    if card is None:
        return None
    facts = []
    if is_number(card.get("mean")) and is_number(card.get("frequency")):
        facts.append(
            ("activity", f"mean {shown_activation(card['mean'])}, active at {percent(card['frequency'])} of tokens")
        )
    for name, title in (("promoted", "tokens promoted"), ("suppressed", "tokens suppressed")):
        if tokens := card.get(name):
            facts.append((title, ", ".join(f"{shown_token(str(token)).strip()} {signed(by)}" for token, by in tokens)))
    ranked = _ranked(card)
    for label in dict.fromkeys(str(row["label"]) for row in ranked):
        best = [row for row in ranked if str(row["label"]) == label][:VALUES]
        facts.append((f"fires for {label} (AUROC)", "; ".join(map(_auroc, best))))
    if cosines := card.get("cosines"):
        facts.append(("cosine with", ", ".join(f"{name} {signed(value)}" for name, value in cosines.items())))
    examples = card.get("examples") or []
    scale = max((_peak(example) for example in examples), default=0.0)
    link = card.get("link")
    safe = str(link) if isinstance(link, str) and link.startswith(NEURONPEDIA) else None
    return Card(facts, [_example(example, scale) for example in examples], safe)


def _ranked(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    measured = [row for row in card.get("firing") or [] if is_number(row.get("auroc"))]
    return sorted(measured, key=lambda row: -float(row["auroc"]))


def _auroc(row: Mapping[str, Any]) -> str:
    ends = [row.get(end) for end in ("low", "high")]
    interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if all(map(is_number, ends)) else ""
    return f"{row['value']} {row['auroc']:.2f}{interval}, n = {counted(row.get('n'))}"


def _peak(example: Mapping[str, Any]) -> float:
    value = example["activations"][example["peak"]]
    return float(value) if is_number(value) else 0.0


def _example(example: Mapping[str, Any], scale: float) -> tuple[str, Markup]:
    """A heading that says in words what the shading shows, and the shaded tokens."""
    labels = ", ".join(f"{name}: {value}" for name, value in (example.get("labels") or {}).items())
    token = shown_token(str(example["tokens"][example["peak"]])).strip()
    heading = (
        f"{example['dialogue']}{f' ({labels})' if labels else ''}: {shown_activation(_peak(example))} at “{token}”"
    )
    shaded = highlight(
        [str(token) for token in example["tokens"]],
        example["activations"],
        start=int(example["start"]),
        stop=int(example["stop"]),
        peak=int(example["peak"]),
        scale=scale,
    )
    return heading, shaded
