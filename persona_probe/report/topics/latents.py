"""SAE latents: which of them moved, what they stand for, and how they change behaviour."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.latents import DRAWN, EFFECT_COLUMNS, points
from persona_probe.figures.text import counted
from persona_probe.report.data_table import Cell, DataTable, build_table, text
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.latent_cards import build_browser
from persona_probe.report.reading import lookup, one_line, read_number, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def _moved_caption(run: RunRecord) -> str:
    null = (
        "Null, squares: the same latent's change from before to the benign control."
        if _has_control(run)
        else "There was no control, so the null is no change: any fine-tuning might move them as far."
    )
    return (
        f"Change of the mean activation of SAE latents from before to after, on the same texts, in standard deviations "
        f"over dialogues; of n = {counted(len(table_of(run, 'latents')))} latents those that moved furthest up and "
        "down (hatched). Whiskers: 95 % intervals of the change over questions (the standard deviation is taken as "
        f"given). {null}"
    )


def _control_caption(run: RunRecord) -> str:
    n = len(table_of(run, "latents"))
    drawn = f"the {counted(DRAWN)} of {counted(n)} that moved furthest" if n > DRAWN else f"all {counted(n)}"
    opening = f"One point per latent ({drawn}; points, so no intervals)"
    if not _has_control(run):
        return (
            f"{opening}: its mean activation before and after. On the dotted line nothing moved. There was no control, "
            "so this cannot be distinguished from what any fine-tuning moves."
        )
    return (
        f"{opening}: how far it moved to after, and how far to the benign control, the null. On the dotted line both "
        "are the same. A latent that moves as far under benign training says nothing about the trait."
    )


def _has_control(run: RunRecord) -> bool:
    table = table_of(run, "latents")
    return "control_sd" in table and bool(table["control_sd"].notna().any())


def _effects_caption(run: RunRecord) -> str:
    return (
        "Change of the EM rate when single latents are steered "
        f"({span_of(table_of(run, 'latent_effects'), 'n', 'judged answers per latent')}). Whiskers: 95 % intervals. "
        "Null, grey: the same displacement along the decoder rows of random latents that match in activity."
    )


def effects_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the effect of steering each latent on the EM rate, compared with matched latents."""

    def in_points(name: str, low: str, high: str) -> Cell:
        return lambda row: points(row, (name, low, high))

    cells = {
        "latent": text("latent"),
        **({"goal": text("goal")} if "goal" in table else {}),
        "change of the EM rate (percentage points)": in_points("effect", "effect_low", "effect_high"),
        "matched latents": in_points("null_effect", "null_low", "null_high"),
    }
    return build_table(table, EFFECT_COLUMNS, "Effects of steering single latents, with 95 % intervals.", cells)


def methods(run: RunRecord) -> list[str]:
    """Sentences on the SAE, and on when a latent counts as moved."""
    layer, moved = read_number(run.results, "latents", "layer"), read_number(run.results, "latents", "moved")
    if layer is None or moved is None:
        return []
    bar = (
        "if it moved further than any latent does under a control (a benign run may pass that in up to 1 of K + 1 "
        "cases with K controls; where these are too few for a claim at 5 %, its finding says so)"
        if facts_of(run).control
        else "if its change differs significantly from zero (there was no control, so any fine-tuning might do the "
        "same)"
    )
    steered = " Latents were steered, and compared with random latents of matching activity."
    return [
        f"SAE latents ({one_line(lookup(run.results, 'latents', 'sae'))}, layer {layer:.0f}) were compared on the same "
        f"texts before and after; one counts as moved only {bar}, at a false-discovery rate of 0.05 "
        f"({counted(moved)} did).{'' if table_of(run, 'latent_effects').empty else steered}"
    ]


LATENTS = Topic(
    (
        Part(
            "latents",
            "SAE latents",
            FigureKind("latents", ("latents",), _moved_caption, drawn_by="latents:latent_bars"),
            verdicts=("latents.verdict",),
            label="SAE latents",
            browser=lambda run: build_browser(table_of(run, "latents"), run.latent_cards),
            optional=True,
        ),
        Part(
            "latents-control",
            "SAE latents compared with the control",
            FigureKind("latents_control", ("latents",), _control_caption, drawn_by="latents:latent_scatter"),
            optional=True,
        ),
        Part(
            "latent-effects",
            "What single latents do",
            FigureKind("latent_effects", ("latent_effects",), _effects_caption, drawn_by="latents:latent_effects"),
            verdicts=("latents.suppress_verdict", "latents.induce_verdict", "latents.set_verdict"),
            label="steering latents",
            tables=lambda run: [effects_table(table_of(run, "latent_effects"))],
            rated=True,
            optional=True,
        ),
    ),
    methods,
    (
        *map(FigureKind, ("latent_agreement", "latent_attribution", "latent_firing", "latent_frequencies")),
        FigureKind("latent_sets", drawn_by="steered_rates:latent_sets"),
        FigureKind("reconstruction"),
    ),
)
