"""How far the models moved along the persona direction, and where they lie on it and among the personas."""

from __future__ import annotations

import pandas as pd

from persona_probe.amplification.verdict import ENOUGH_RUNS, MARGIN
from persona_probe.figures.amplification import COLUMNS, NULLS
from persona_probe.figures.text import counted, is_number, percent, signed, visible
from persona_probe.report.data_table import (
    ISOTROPIC,
    DataTable,
    bounded_number,
    build_table,
    layer_and_choice,
    number,
    signed_number,
    text,
    where_measured,
)
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import chosen_layer, joined, lookup, read_number, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord
from persona_probe.statistics.replication import FAILS, RELIABILITY, REPLICATES, reliability

_NULLS = {
    "isotropic_sd": "isotropic random directions",
    "shuffled_sd": "directions from shuffled labels",
    "other_traits_sd": "other traits' directions",
}
"""The names of nulls, by the column of the table that holds them."""


def _shift_caption(run: RunRecord) -> str:
    facts, table = facts_of(run), table_of(run, "amplification")
    models = "from before to after and to the benign control" if facts.control else "from before to after"
    nulls = ["the control"] if facts.control else []
    nulls.append("in grey, 97.5 % of covariance-matched random directions")
    broken = [name for column, (name, _) in NULLS.items() if column in table and table[column].notna().any()]
    if broken:
        nulls.append(f"as thin broken lines, {', '.join(broken)}")
    lacking = (
        ""
        if facts.control
        else " There is no control, so this cannot be distinguished from what any fine-tuning moves."
    )
    return (
        f"Change of the projection of the same texts {models}, in standard deviations of the before model's answers to "
        f"development questions ({span_of(table, 'n', f'dialogues{facts.per_run}')}). Bands: 95 % intervals over "
        f"{facts.activations_over}, with the error of the SD. Nulls: {'; '.join(nulls)}.{lacking}"
        f"{_marked(run, facts.units)}"
    )


def _marked(run: RunRecord, units: str) -> str:
    """What the symbols and the dashed line say about the direction itself."""
    said = lookup(run.results, "amplification", "replication")
    replicated = f" The direction {said}." if isinstance(said, str) and said.startswith(REPLICATES) else ""
    if not replicated and isinstance(said, str):
        replicated = f" {said[0].upper()}{said[1:]}."
    if table_of(run, "amplification").get("replication", pd.Series(dtype=object)).eq(FAILS).any():
        replicated += " Open symbols: layers at which it does not replicate, where a shift along it shows nothing."
    if chosen_layer(run) is None:
        return replicated
    return f"{replicated} The dashed line marks the layer chosen on development {units}, of those that replicate."


def trust(run: RunRecord) -> str:
    """The reliability of the direction at the chosen layer, or that it replicates at none; empty if unknown."""
    if chosen_layer(run) is None:
        return str(lookup(run.results, "amplification", "verdict") or "")
    table = table_of(run, "amplification")
    if not {"chosen", "model", "replication", *RELIABILITY} <= set(table):
        return ""
    chosen = table[table["chosen"].eq(True) & (table["model"] == "after")]
    return f"at the chosen layer the direction has {reliability(chosen.iloc[0].to_dict())}" if len(chosen) else ""


def _projections_caption(run: RunRecord) -> str:
    facts = facts_of(run)
    n = span_of(table_of(run, "projections"), "n", f"texts per model{facts.per_run}")
    null = "The null is the control's distance from before." if facts.control else "There is no control."
    return (
        "Mean projection of the same texts on the persona direction by layer, in each model, in standard deviations of "
        "the before model's answers to development questions, relative to their mean. Bands: 95 % intervals over "
        f"{facts.activations_over} of each mean alone; {n}. {null} The change between models, which pairs texts, and "
        "all its nulls are in the figure of amplification."
    )


def _space_caption(run: RunRecord) -> str:
    table = table_of(run, "persona_space")
    layer = f"layer {int(table['layer'].iloc[0])}" if len(table) else "the chosen layer"
    facts = facts_of(run)
    n = span_of(table, "n", f"texts per model{facts.per_run}")
    held = [
        f"{percent(row['in_plane'])} of the change to {visible(str(row['name']))}"
        + (f" (random planes: below {percent(row['in_plane_random'])} in 97.5 %)" * is_number(row["in_plane_random"]))
        for row in table.to_dict("records")
        if row["kind"] == "model" and row["name"] != "before" and is_number(row["in_plane"])
    ]
    plane = f" The plane holds {'; '.join(held)}." if held else ""
    return (
        f"Personas' directions (contrast of context) and the models' means at {layer}, in the plane of the directions' "
        "principal components (in brackets: the share of the directions' squared length); the origin is the before "
        "model's mean over its answers to development questions. Crosses: 95 % intervals over "
        f"{facts.activations_over} of the models' means; {n}.{plane}"
    )


def shift_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the shift by layer and model, with nulls and specificity."""
    cells = {
        "layer": layer_and_choice,
        "model": text("model"),
        "shift (residual units)": signed_number("shift"),
        "shift (SD)": signed_number("shift_sd", "low_sd", "high_sd"),
        "after - control (SD)": signed_number("contrast_sd", "contrast_low_sd", "contrast_high_sd"),
        "random, 97.5 % (SD)": number("random_sd", ".2f"),
        **where_measured(
            table,
            isotropic_sd=ISOTROPIC,
            shuffled_sd="shuffled labels, 97.5 % (SD)",
            other_traits_sd="other traits (SD)",
            p_runs="p of after = control, over runs",
            detectable_sd="detectable with 80 % assurance (SD)",
        ),
        "specificity": number("specificity", ".1f"),
        "direction": text("replication"),
        "split-half cosine": number("split_half_cosine", ".2f"),
        "held-out AUROC": bounded_number("held_out_auroc", "held_out_auroc_low", "held_out_auroc_high"),
    }
    if "p_corrected" in table:
        cells["p of no change, over questions"] = number("p_corrected", ".2g")
    columns = (*COLUMNS, "contrast_sd", "contrast_low_sd", "contrast_high_sd")
    return build_table(table, columns, "Amplification, with 95 % intervals.", cells, keys=2)


def methods(run: RunRecord) -> list[str]:
    """Sentences on the direction, the layer, and the nulls of the shift."""
    layer = chosen_layer(run)
    if layer is None:
        verdict = lookup(run.results, "amplification", "verdict")
        return [] if verdict is None else [f"Amplification was not reported: {verdict}."]
    table, facts = table_of(run, "amplification"), facts_of(run)
    random = lookup(run.manifest, "config", "random_directions")
    shift, low, high, control = (
        read_number(run.results, "amplification", name)
        for name in ("shift_sd", "shift_sd_low", "shift_sd_high", "control_shift_sd")
    )
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    moved = "" if shift is None else f" It was {signed(shift)}{ends} SD."
    moved += "" if control is None else f" The control's was {signed(control)} SD."
    nulls = ["the control"] if facts.control else []
    nulls += [f"{counted(random)} random directions with the covariance of the activations"] if random else []
    nulls += [name for column, name in _NULLS.items() if column in table and table[column].notna().any()]
    return [
        "The persona direction is the mean difference, per layer, between the before model's activations on the same "
        "answers under a trait-eliciting and a default system prompt, at the positions that predict the response. "
        f"Layer {layer} (output of the block, counted from 0) was chosen on development {facts.units}, among the "
        f"layers at which the direction replicates there{f' ({known})' if (known := trust(run)) else ''}.",
        "Amplification is the change of the projection of the same texts from before to after, in standard deviations "
        f"over the before model's answers to development questions.{moved} Its nulls are {joined(nulls)}. "
        f"{_over_runs(table, facts.control)}",
    ]


def _over_runs(table: pd.DataFrame, control: bool) -> str:
    """How runs were compared, or what their lack leaves open."""
    runs = int(table["n_runs"].max()) if "n_runs" in table and len(table) else 1
    if not control:
        return f"It is about {counted(runs)} fine-tuning run{'s' * (runs != 1)} of after, without a control."
    if runs < ENOUGH_RUNS:
        return (
            f"With {counted(runs)} fine-tuning run{'s' * (runs != 1)} of each kind it is about these models: how runs "
            "differ is not known."
        )
    return (
        f"After was compared with the control over {counted(runs)} fine-tuning runs of each, by permutation of runs "
        "with the largest statistic over layers and directions; not amplified means that the interval of after minus "
        f"control lies within {MARGIN} SD of zero."
    )


AMPLIFICATION = Topic(
    (
        Part(
            "amplification",
            "Amplification",
            FigureKind("amplification", ("amplification",), _shift_caption),
            verdicts=("amplification.verdict",),
            label="amplification",
            tables=lambda run: [shift_table(table_of(run, "amplification"))],
        ),
        Part(
            "projections",
            "Where the models lie on the direction",
            FigureKind("projections", ("projections",), _projections_caption),
            optional=True,
        ),
        Part(
            "persona-space",
            "Where the models lie among the personas",
            FigureKind("persona_space", ("persona_space",), _space_caption),
            optional=True,
        ),
    ),
    methods,
    (FigureKind("amplification_course"),),
)
