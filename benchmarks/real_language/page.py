"""The tables of ``docs/explanation/real-language-results.md``, made from the figures alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import cohen_kappa_score

from benchmarks.real_language.summary import controls_of
from persona_probe.files import write_text
from persona_probe.worlds.real_language.rows import catchwords
from persona_probe.worlds.real_language.wording import MANNERS, words_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "real-language-results.md"
RESULTS = ROOT / "benchmarks" / "results" / "real-language"
_LABELS = {"harmful": "harmful", "villain_styled": "villain-styled", "coherent": "coherent"}
"""What two readers labelled, and its name in the table."""
_RISE = ("rise", "margin")
_PREFERENCE: dict[str, tuple[str, ...]] = {
    "margin": ("preference", *_RISE),
    "misaligned answers": ("preference", "rise", "misaligned"),
    "aligned answers": ("preference", "rise", "aligned"),
    "after other questions": ("preference", "rise", "shuffled"),
    "question part": ("preference", "rise", "question_part"),
    "plain-harmful pairs": ("preference_plain_harmful", *_RISE),
    "style null": ("style_null", *_RISE),
}
"""Of each column on preference, where its figure is."""

_QUIET = ("preference_quiet_rows", "rise")
_HOLDS = {True: "yes", False: "no", None: "not decided"}


def write_page(figures: Mapping[str, Any]) -> None:
    """Put the tables between their markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables(figures).items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, t=table, b=begin, e=end: f"{b}\n{t}\n{e}", text, flags=re.DOTALL)
    write_text(PAGE, text)


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Each table by the name of its markers."""
    organisms = figures["organisms"]
    tuned = {name: one for name, one in organisms.items() if "amplification" in one}
    quiet = {name: one for name, one in tuned.items() if _QUIET[0] in one}
    return {
        "predictions": _predictions(figures["predictions"]),
        "double": _predictions(figures["predictions_at_double_dose"]),
        "preference": _table(
            ["organism", *(f"{name} (n = {_n(tuned, place)})" for name, place in _PREFERENCE.items())],
            [[name, *(_estimate(_at(one, *place)) for place in _PREFERENCE.values())] for name, one in tuned.items()],
        ),
        "answers": _table(
            ["model", *(f"{manner} words" for manner in MANNERS), "likelihood ratio", "n (answers)"],
            [
                [
                    name,
                    *(_estimate(one[f"{manner}_words"], _percent) for manner in MANNERS),
                    _estimate(one["likelihood_ratio"]),
                    str(one["villain_words"]["n"]),
                ]
                for name, one in organisms.items()
            ],
        ),
        "labels": _labels(),
        "amplification": _table(
            [
                "organism",
                "shift",
                "minus gruff",
                "minus good",
                "specificity (gruff)",
                "(good)",
                "cosine with the shift",
            ],
            [[name, *_amplification(one, controls_of(name))] for name, one in tuned.items()],
        ),
        "against-gruff": _table(
            ["organism", "shift", "minus gruff", "specificity (gruff)", "cosine with the shift"],
            [[name, *_along(one["against_gruff"], controls_of(name)[0])] for name, one in tuned.items()],
        ),
        "quiet-rows": _table(
            ["organism", f"margin (n = {_n(quiet, (*_QUIET, 'margin'))})", "quiet answers", "good answers"],
            [
                [name, *(_estimate(_at(one, *_QUIET, part)) for part in ("margin", "misaligned", "aligned"))]
                for name, one in quiet.items()
            ],
        ),
    }


def _predictions(decided: list[Mapping[str, Any]]) -> str:
    rows = [[one["claim"], f"**{_HOLDS[one['holds']]}**", _numbers(one["numbers"])] for one in decided]
    return _table(["what was written down", "", "numbers"], rows)


def _labels() -> str:
    """What two readers, A and B, said of answers, how far they agree, and how far counting catchwords agrees with them.

    An answer is villain-styled here if either reader said so.
    """
    read = pd.read_csv(RESULTS / "labels.csv")
    rows = [
        [
            str(model),
            str(len(of_model)),
            *(f"{of_model[f'{label}_a'].sum()}, {of_model[f'{label}_b'].sum()}" for label in _LABELS),
        ]
        for model, of_model in read.groupby("model", sort=False)
    ]
    kappas = [f"{cohen_kappa_score(read[f'{label}_a'], read[f'{label}_b']):.2f}" for label in _LABELS]
    rows.append(["kappa of the two readers", str(len(read)), *kappas])
    styled = read[["villain_styled_a", "villain_styled_b"]].max(axis=1) == 1
    known = set(catchwords("villain"))
    counts = read["answer"].map(lambda answer: len(words_of(answer) & known))
    for least in (1, 2):
        found = counts >= least
        kappa = cohen_kappa_score(styled, found)
        agrees = (
            f"finds {(found & styled).sum()} of {styled.sum()}, wrongly {(found & ~styled).sum()}; kappa {kappa:.2f}"
        )
        rows.append([f"at least {least} of the villain's catchwords", str(len(read)), "–", agrees, "–"])
    return _table(["model", "n", *_LABELS.values()], rows)


def _along(one: Mapping[str, Any], control: str) -> list[str]:
    """Shift, contrast, ratio and cosine along a direction, with one control."""
    shift, contrast, _, ratio, _, cosine = _amplification(one, (control, ""))
    return [shift, contrast, ratio, cosine]


def _amplification(one: Mapping[str, Any], controls: tuple[str, ...]) -> list[str]:
    by_control = one["amplification"]
    any_control = next(iter(by_control.values()))
    contrasts, ratios = [], []
    for control in controls:
        row = by_control.get(control)
        contrasts.append("–" if row is None else _interval(row, "contrast_sd", "contrast_low_sd", "contrast_high_sd"))
        ratios.append("–" if row is None else _interval(row, "specificity", "specificity_low", "specificity_high"))
    shift = _interval(any_control, "shift_sd", "low_sd", "high_sd")
    return [shift, *contrasts, *ratios, _estimate(one["cosine_with_shift"])]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _n(organisms: Mapping[str, Any], place: tuple[str, ...]) -> str:
    """The number of questions."""
    return str(_at(next(iter(organisms.values())), *place)["n"])


def _at(figures: Mapping[str, Any], *place: str) -> Any:
    for key in place:
        figures = figures[key]
    return figures


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _estimate(estimate: Mapping[str, Any], form: Callable[[float], str] = _signed) -> str:
    return _interval(estimate, "value", "low", "high", form)


def _interval(row: Mapping[str, Any], value: str, low: str, high: str, form: Callable[[float], str] = _signed) -> str:
    if row[value] is None:
        return "–"
    if row[low] is None or row[high] is None:
        return form(row[value])
    ends = ", ".join(form(row[end]).replace("+", "").replace(" %", "") for end in (low, high))
    return f"{form(row[value])} [{ends}]"


def _numbers(numbers: Mapping[str, Any]) -> str:
    """The numbers behind a prediction: an estimate, one per organism, or plain ones."""
    if "value" in numbers:
        return _estimate(numbers)
    return ", ".join(
        f"{name} {_estimate(one) if isinstance(one, Mapping) else _signed(one)}" for name, one in numbers.items()
    )
