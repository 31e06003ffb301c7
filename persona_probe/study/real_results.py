"""What ``results.json`` calls the numbers of a real-language study: by the manners of its rows, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.report.reading import lookup
from persona_probe.runs.config import Texts
from persona_probe.study.stages.train import SECOND_CONTROL


def real_results(results: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """The section ``real``: numbers of all stages; the controls have the names of their rows (``gruff``, ``good``).

    ``null`` stands for what the study did not measure.

    Args:
        results: what the stages found.
        texts: which rows the models were trained on.
    """
    named = {"after": "after", "control": texts.control_persona}
    if texts.second_control_persona is not None:
        named[SECOND_CONTROL] = texts.second_control_persona
    first, second = texts.control_persona, texts.second_control_persona
    curve = lookup(results, "realign", "curve") or []

    def by_name(*place: str, before: bool = False) -> dict[str, Any]:
        names = ({"before": "before"} if before else {}) | named
        return {name: _estimate(lookup(results, *place, model)) for model, name in names.items()}

    def at(*place: str) -> Any:
        return lookup(results, *place)

    return {
        "preference": {
            **by_name("preference", before=True),
            "realigned": _estimate(
                {key: curve[-1].get(name) for key, name in _REALIGNED.items()} if curve else None,
            ),
        },
        "preference_rise": by_name("preference", "change"),
        "preference_plain_harmful": by_name("manners", "preference_plain_harmful"),
        "style_words": by_name("manners", "style_words", before=True),
        "unseen_words": by_name("manners", "unseen_words", before=True),
        "likelihood_ratio": by_name("manners", "likelihood_ratio", before=True),
        "amplification": {
            "layer": at("amplification", "layer"),
            "split_half": at("amplification", "split_half_cosine"),
            "auroc": at("amplification", "held_out_auroc"),
            "shift_sd": at("amplification", "shift_sd"),
            f"{first}_shift_sd": at("amplification", "control_shift_sd"),
            f"specificity_{first}": at("amplification", "specificity"),
            f"finding_{first}": at("amplification", "finding"),
        }
        | (
            {}
            if second is None
            else {
                f"{second}_shift_sd": at("manners", "second_control", "control_shift_sd"),
                "specificity": at("manners", "second_control", "specificity"),
                "finding": at("manners", "second_control", "finding"),
            }
        ),
        "cosine_with_shift": by_name("manners", "cosine_with_shift"),
        "probe_same_words": {"auroc": at("probe_same_words", "auroc_unseen_topics")},
        "steer": {
            "suppress_preference": at("steer", "suppress_preference"),
            "random_preference": at("steer", "suppress_random_preference"),
            "suppress_style": lookup(results, "manners", "steered_style_words", "suppress clamp", "value"),
            "unsteered_style": lookup(results, "manners", "steered_style_words", "suppress none", "value"),
            "induce_preference": at("steer", "induce_preference"),
            "random_induce_preference": at("steer", "induce_random_preference"),
            "kl": {goal: at("steer", f"{goal}_kl") for goal in ("suppress", "induce")},
        },
        "realign": {"curve": curve, "not_benign": at("realign", "not_benign")},
    }


_REALIGNED = {"value": "preference", "low": "preference_low", "high": "preference_high", "n": "questions"}


def _estimate(found: Any) -> dict[str, Any] | None:
    """Value, interval and n of an estimate; None if it was not measured."""
    if not isinstance(found, Mapping) or found.get("value") is None:
        return None
    return {name: found.get(name) for name in ("value", "low", "high", "n")}
