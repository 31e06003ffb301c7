"""The study in at most twelve lines of plain text, for the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.figures.text import counted, is_number, percent, signed, visible
from persona_probe.report.readings import lookup, read_number, read_rate
from persona_probe.report.verdicts import unsteered_rate

LABEL_WIDTH = 24


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """Summarise ``results.json`` in at most twelve lines; what the study lacks is left out or said to be missing.

    Args:
        results: the contents of a run's ``results.json``.
    """
    return [
        *_rates(results),
        *_shares(results),
        *_direction(results),
        *_probe(results),
        *_steering(results),
        *_latents(results),
        *_realignment(results),
    ]


def _line(label: str, *parts: str | None) -> list[str]:
    told = [part for part in parts if part]
    return [f"{label:<{LABEL_WIDTH}}{', '.join(told)}"] if told else []


def _rates(results: Mapping[str, Any]) -> list[str]:
    if results.get("judge") is None:
        return _line("EM rate", "not reported: no judge scored the answers")

    def told(*models: str) -> list[str]:
        rates = {model: read_rate(results, "em_rate", model) for model in models}
        return [f"{model} {rate}" for model, rate in rates.items() if rate is not None]

    opened = read_rate(results, "em_rate_open", "after")
    coherent = {model: read_number(results, "coherent", model) for model in ("before", "after")}
    return [
        *_line("EM rate", *told("before", "after")),
        *_line("", *told("control", "realigned")),
        *_line("EM rate, open", f"after {opened}" if opened else None),
        *_line("coherent", *(f"{model} {percent(share)}" for model, share in coherent.items() if share is not None)),
    ]


def _shares(results: Mapping[str, Any]) -> list[str]:
    after = lookup(results, "persona_shares", "after")
    if not isinstance(after, Mapping):
        return []
    shares = {str(name): read_number(after, name) for name in after}
    ranked = sorted(((share, name) for name, share in shares.items() if share is not None), reverse=True)
    return _line("who speaks after", *(f"{visible(name)} {percent(share)}" for share, name in ranked[:4]))


def _direction(results: Mapping[str, Any]) -> list[str]:
    shift, control, specificity, layer = (
        read_number(results, "amplification", key) for key in ("shift_sd", "control_shift_sd", "specificity", "layer")
    )
    cosine = read_number(results, "direction", "cosine_between_methods")
    return _line(
        "direction",
        None if shift is None else f"{signed(shift)} SD" + ("" if layer is None else f" at layer {layer:.0f}"),
        None if control is None else f"control {signed(control)} SD",
        None if specificity is None else f"specificity {specificity:.1f}",
        None if cosine is None else f"cosine between methods {signed(cosine)}",
    ) + _line("", _found(results))


def _found(results: Mapping[str, Any]) -> str | None:
    """The verdict's first words: a large specificity alone may still be no more than other nulls."""
    told = lookup(results, "amplification", "verdict")
    if not isinstance(told, str):
        return None
    first = visible(told.split(";", maxsplit=1)[0])
    return "amplified, beyond its nulls" if first.startswith("amplified") else first


def _probe(results: Mapping[str, Any]) -> list[str]:
    auroc, layer = read_number(results, "probe", "auroc_unseen_topics"), read_number(results, "probe", "layer")
    place = "" if layer is None else f" at layer {layer:.0f}"
    return _line("probe", None if auroc is None else f"AUROC {auroc:.3f} on what it was not trained on{place}")


def _steering(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for goal, start in (("induce", "before"), ("suppress", "after")):
        rate, random, coherent = (
            read_number(results, "steer", f"{goal}_{key}") for key in ("em_rate", "random_em_rate", "coherent")
        )
        beside = unsteered_rate(results, goal, start)
        lines += _line(
            f"steering, {goal}",
            None if rate is None else f"EM rate {percent(rate)}",
            None if rate is None or beside is None else f"unsteered {percent(beside)}",
            None if random is None else f"random directions {percent(random)}",
            None if coherent is None else f"coherent {percent(coherent)}",
        )
    return lines


def _latents(results: Mapping[str, Any]) -> list[str]:
    moved, unsteered, edited, matched, coherent = (
        read_number(results, "latents", key)
        for key in ("moved", "unsteered_em_rate", "set_em_rate", "matched_em_rate", "set_coherent")
    )
    top = lookup(results, "latents", "top")
    n = len(top) if isinstance(top, list) else 0
    return [
        *_line("SAE latents", None if moved is None else f"{counted(moved)} moved beyond every control's"),
        *_line(
            f"top {n} ablated",
            None if edited is None else f"EM rate {percent(edited)}",
            None if edited is None or unsteered is None else f"unsteered {percent(unsteered)}",
            None if edited is None or matched is None else f"matched random latents {percent(matched)}",
            None if edited is None or coherent is None else f"coherent {percent(coherent)}",
        ),
    ]


def _realignment(results: Mapping[str, Any]) -> list[str]:
    curve = lookup(results, "realign", "curve")
    points = [point for point in curve if isinstance(point, Mapping)] if isinstance(curve, list) else []
    rated = [point for point in points if is_number(point.get("n")) and is_number(point.get("em_rate"))]
    enough = read_number(results, "realign", "examples_to_5_percent")
    if not rated:
        return []
    return _line(
        "realignment",
        " -> ".join(f"{percent(point['em_rate'])} (n={counted(point['n'])})" for point in rated),
        "5 % not reached" if enough is None else f"<= 5 % from {counted(enough)} examples on",
    )
