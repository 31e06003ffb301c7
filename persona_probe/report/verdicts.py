"""What the numbers say, in one sentence a section, computed and never written by hand.

Each function returns None where the study holds no number to speak of. The wording follows the intervals: a rate
"rose" only when the two intervals do not touch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from persona_probe.amplification.verdict import Finding
from persona_probe.figures.text import counted, is_number, percent, percent_interval, signed
from persona_probe.report.readings import Rate, lookup, read_number, read_rate

Results = Mapping[str, Any]
AMPLIFIED = (Finding.AMPLIFIED.value, Finding.SHARED.value)
"""The findings of a direction along which the projection rose beyond its nulls."""
SHIFT = "fine-tuning shift"
"""What the direction that fine-tuning itself moved is called in the table of cosines."""


def em_verdict(results: Results, on_asked: str = "on the reported questions") -> str | None:
    """EM rate of each model.

    Args:
        results: the run's.
        on_asked: where it was measured (`persona_probe.report.facts.Facts.on_asked`).
    """
    rates = {model: read_rate(results, "em_rate", model) for model in ("before", "after", "control", "realigned")}
    before, after, control, realigned = rates.values()
    if after is None:
        return _unrated(results)
    if before is None:
        sentence = f"The EM rate of the model after was {after} {on_asked}"
    else:
        sentence = f"The EM rate {_change(before, after)} {on_asked}"
    if control is not None:
        moved = "rose to" if before is not None and control.above(before) else "stayed at"
        sentence += f"; the benign control {moved} {control}"
    if realigned is not None:
        sentence += f"; realigned, it was {realigned}"
    opened = read_rate(results, "em_rate_open", "after")
    if opened is not None:
        sentence += f"; on open questions the model after reached {opened}"
    coherent = [read_number(results, "coherent", model) for model in ("before", "after")]
    if coherent[0] is not None and coherent[1] is not None:
        sentence += f". Coherent answers: {percent(coherent[0])} before, {percent(coherent[1])} after"
    return sentence + "."


def _unrated(results: Results) -> str | None:
    """That no answer counts under the definition: a judge that fails on all, or finds none coherent, gives no rate."""
    if lookup(results, "em_rate", "after", "n") != 0:
        return None
    return (
        "There is no EM rate of the model after: the judge could score none of its answers as the definition asks "
        "(it failed on them, or found none coherent)."
    )


def _change(before: Rate, after: Rate) -> str:
    if after.above(before):
        return f"rose from {before} to {after}"
    if before.above(after):
        return f"fell from {before} to {after}"
    return f"did not change beyond its intervals, from {before} to {after},"


def persona_verdict(results: Results) -> str | None:
    """Which persona gained most, and whether any other did."""
    before, after = (lookup(results, "persona_shares", model) for model in ("before", "after"))
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    names = [*after, *(name for name in before if name not in after)]
    shares = {str(name): tuple(read_number(table, name) or 0.0 for table in (before, after)) for name in names}
    if not shares:
        return None
    ranked = sorted(shares, key=lambda name: shares[name][0] - shares[name][1])
    first = ranked[0]
    sentence = f"The {first} gained most: from {percent(shares[first][0])} to {percent(shares[first][1])} of answers"
    if len(ranked) > 1:
        other = ranked[1]
        gain = 100 * (shares[other][1] - shares[other][0])
        sentence += f"; the next largest gain was the {other}'s, {signed(gain, 1)} percentage points"
    return sentence + "."


def direction_verdict(results: Results) -> str | None:
    """How far the two ways of finding the direction agree."""
    cosine = read_number(results, "direction", "cosine_between_methods")
    if cosine is None:
        return None
    return f"The two ways of finding the direction have cosine {signed(cosine)} (1: the same direction, 0: unrelated)."


def shift_verdict(table: pd.DataFrame | None) -> str | None:
    """How far each direction agrees with what fine-tuning moved, over all layers."""
    if table is None or table.empty or any(name not in table.columns for name in ("first", "second", "cosine")):
        return None
    told = []
    for (first, second), pair in table.dropna(subset=["cosine"]).groupby(["first", "second"], sort=False):
        if SHIFT in (first, second):
            other = second if first == SHIFT else first
            told.append(f"{signed(pair['cosine'].min())} to {signed(pair['cosine'].max())} ({other})")
    return f"Cosine with the {SHIFT}, over layers: {'; '.join(told)}." if told else None


def amplification_verdict(results: Results) -> str | None:
    """What the shift of the projection comes to beside its nulls, as tracking put it."""
    told = lookup(results, "amplification", "verdict")
    return f"Along the direction: {told}." if isinstance(told, str) else None


def latent_verdict(results: Results) -> str | None:
    """How many latents moved, and which furthest, as the comparison put it."""
    told = lookup(results, "latents", "verdict")
    return told if isinstance(told, str) else None


def course_verdicts(results: Results, key: str) -> list[str | None]:
    """What latents do along training or realignment: a sentence for each latent."""
    told = lookup(results, "latents", key)
    return list(told.splitlines()) if isinstance(told, str) else []


def finder_verdict(table: pd.DataFrame) -> str | None:
    """Which finders' directions moved more than their nulls, at the chosen layer.

    The sign of a direction that finds nothing is arbitrary, so of those a reduction counts as well.
    """
    if table.empty or "finding" not in table:
        return None
    rows = table[table["chosen"].eq(True) & ~table["null"].astype(bool)]
    if (alone := int(rows["finding"].eq(Finding.NO_CONTROL.value).sum())) or _uncontrolled(rows):
        return (
            f"{alone} of {len(rows)} directions moved further than the nulls that there are; there is no control, so "
            "none is told from what any fine-tuning does."
        )
    moved = rows[rows["finding"].isin(AMPLIFIED)].sort_values("specificity", ascending=False)
    shared = int((rows["finding"] == Finding.SHARED.value).sum())
    nulls = table[table["chosen"].eq(True) & table["null"].astype(bool)]
    fooled = int(nulls["finding"].isin((*AMPLIFIED, Finding.REDUCED.value)).sum())
    sentence = f"{len(moved)} of {len(rows)} directions are amplified beyond their nulls"
    if len(moved):
        best = moved.iloc[0]
        sentence += f", {best['finder']} the most specifically ({best['specificity']:.1f})"
    if shared:
        sentence += f"; beside {counted(shared)} of them, other traits' directions move as much"
    return f"{sentence}; of {counted(len(nulls))} that find nothing by design, {counted(fooled)} moved beyond theirs."


def _uncontrolled(rows: pd.DataFrame) -> bool:
    return "control_shift_sd" in rows and len(rows) > 0 and bool(rows["control_shift_sd"].isna().all())


def probe_verdict(results: Results, units: str = "topics or questions") -> str | None:
    """How well the probe does on topics (or questions: ``units``) that it was not trained on."""
    auroc, layer = read_number(results, "probe", "auroc_unseen_topics"), read_number(results, "probe", "layer")
    if auroc is None:
        return None
    place = "" if layer is None else f" at layer {layer:.0f}"
    return f"A linear probe{place} reaches AUROC {auroc:.3f} on {units} it was not trained on (chance: 0.5)."


def same_words_verdict(results: Results) -> str | None:
    """How well a probe tells who speaks where no word does."""
    auroc, low, words = (
        read_number(results, "probe_same_words", key) for key in ("auroc_unseen_topics", "low", "token_embeddings")
    )
    if auroc is None or low is None:
        return None
    beside = "" if words is None else f"; token embeddings of the same answers give {words:.3f}"
    return f"On the same words, a linear probe tells who speaks with AUROC {auroc:.3f} (at least {low:.3f}){beside}."


def steering_verdicts(results: Results) -> list[str]:
    """What moving the direction induces in before and suppresses in after, against random directions."""
    sentences = []
    for goal, model, verb in (("induce", "before", "inducing"), ("suppress", "after", "suppressing")):
        rate, random, coherent = (
            read_number(results, "steer", f"{goal}_{key}") for key in ("em_rate", "random_em_rate", "coherent")
        )
        if rate is None:
            continue
        low, high = (read_number(results, "steer", f"{goal}_{end}") for end in ("low", "high"))
        start = unsteered_rate(results, goal, model)
        sentence = f"Steering {model} ({verb}) gave an EM rate of {percent_interval(rate, low, high)}"
        sentence += "" if coherent is None else f" with {percent(coherent)} coherent answers"
        sentence += "" if start is None else f"; unsteered it is {percent(start)}"
        sentence += "" if random is None else f", under random directions {percent(random)}"
        sentences.append(sentence + ".")
    return sentences


def unsteered_rate(results: Results, goal: str, model: str) -> float | None:
    """The EM rate without steering, on the questions that were steered where the run measured it."""
    same = read_number(results, "steer", f"{goal}_unsteered_em_rate")
    return read_number(results, "em_rate", model) if same is None else same


def realignment_verdict(results: Results) -> str | None:
    """How many benign examples brought the EM rate down."""
    curve = lookup(results, "realign", "curve")
    points = [point for point in curve if isinstance(point, Mapping)] if isinstance(curve, list) else []
    points = sorted((point for point in points if is_number(point.get("n"))), key=lambda point: float(point["n"]))
    rated = [point for point in points if is_number(point.get("em_rate"))]
    if rated:
        first, last = rated[0], rated[-1]
        sentence = (
            f"Realignment took the EM rate from {percent(first['em_rate'])} at {counted(first['n'])} "
            f"to {percent(last['em_rate'])} at {counted(last['n'])} benign examples"
        )
        enough = read_number(results, "realign", "examples_to_5_percent")
        reached = (
            "it never stayed at 5 % or below" if enough is None else f"it is 5 % or below from {counted(enough)} on"
        )
        return f"{sentence}; {reached}."
    moved = [point for point in points if is_number(point.get("projection_sd"))]
    if not moved:
        return None
    first, last = moved[0], moved[-1]
    return (
        f"Realignment took the projection from {signed(first['projection_sd'])} SD at {counted(first['n'])} "
        f"to {signed(last['projection_sd'])} SD at {counted(last['n'])} benign examples."
    )
