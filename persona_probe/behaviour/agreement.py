"""How far two judges, or a judge and people, agree on the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.agreement_result import JudgeAgreement
from persona_probe.behaviour.em_rates import DEFINITIONS, answer_categories, check_definition, scored
from persona_probe.behaviour.matched_answers import judged_table, match_answers
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.kappa import cohens_kappa, correlation
from persona_probe.statistics.rates import mean_estimate

SCORES = ("aligned", "coherent")


def judge_agreement(
    first: Any, second: Any, *, definition: str = "betley", names: tuple[str, str] = ("first", "second")
) -> JudgeAgreement:
    """How far two judgements of the same answers agree: by their scores, and by what a definition makes of them.

    Answers are matched by what they are (model, question, prompt, answer), not by their place
    (`persona_probe.behaviour.matched_answers`); what has no partner is counted and said.

    - **kappa** (Cohen's, `persona_probe.statistics.kappa.cohens_kappa`) of ``misaligned`` (misaligned and coherent) and
      of ``coherent``, over answers that both scored; and of ``category``, over all: misaligned, aligned, incoherent,
      and, as categories of their own, refusal and failed.
    - **pearson** and **spearman** correlations of the scores, and the **bias**: the mean of the second's scores minus
      the first's, in points of 0-100.

    All intervals are over questions.

    Args:
        first: judged answers: `persona_probe.Answers`, labels (`persona_probe.behaviour.read_labels`) or a table with
            ``question``, ``answer``, ``aligned`` and ``coherent``.
        second: another judgement of the same answers, or of some of them.
        definition: which EM rate's lines say what is misaligned and coherent.
        names: what to call the two.

    Raises:
        PersonaProbeError: if no answer is in both, a table lacks a column, a score is outside 0-100, or the definition
            is unknown.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> asked = {"question": list("aabbccdd"), "answer": [f"Answer {n}." for n in range(8)]}
    >>> judge = pd.DataFrame({**asked, "aligned": [5, 90, 80, 10, 95, 90, 20, 85], "coherent": 90})
    >>> person = judge.assign(aligned=[0, 100, 100, 0, 100, 0, 0, 100]).iloc[::-1]
    >>> agreement = pp.behaviour.judge_agreement(judge, person, names=("the judge", "a person"))
    >>> agreement.estimate("kappa", "misaligned").value
    0.75
    >>> agreement.disagreements(1)[["answer", "aligned: the judge", "aligned: a person"]].to_dict("records")
    [{'answer': 'Answer 5.', 'aligned: the judge': 90.0, 'aligned: a person': 0.0}]
    """
    check_types(definition=(definition, str), names=(names, [str]))
    check_definition(definition)
    if len(names) != 2 or names[0] == names[1]:
        raise PersonaProbeError(f"names is {names!r}; give two different names, one for each judgement")
    tables = judged_table(first, names[0]), judged_table(second, names[1])
    matched = match_answers(*tables, names)
    sides = [
        table.iloc[places].reset_index(drop=True)
        for table, places in zip(tables, (matched.first, matched.second), strict=True)
    ]
    together = sides[0][[name for name in ("model", "question", "prompt", "answer") if name in sides[0]]].copy()
    for name, side in zip(names, sides, strict=True):
        together[f"category: {name}"] = answer_categories(side, definition)
        together = together.assign(**{f"{score}: {name}": side[score].astype(float) for score in SCORES})
    questions = sides[0]["question"].astype(str)
    remarks = matched.remarks(names)
    for name, side in zip(names, sides, strict=True):
        if "weight" in side and not np.allclose(side["weight"], side["weight"].iloc[0]):
            remarks.append(f"The answers of {name} were drawn in unequal shares: these numbers are of this sample")
    rows = [
        {"measure": measure, "of": of, **estimate.as_dict()}
        for (measure, of), estimate in _measured(sides, questions, definition).items()
    ]
    return JudgeAgreement(
        pd.DataFrame(rows).astype(dict.fromkeys(("value", "low", "high"), float)),
        together,
        definition,
        (names[0], names[1]),
        tuple(remarks),
        matched.unmatched,
    )


def _measured(sides: list[pd.DataFrame], questions: pd.Series[str], definition: str) -> dict[tuple[str, str], Estimate]:
    """Every measure of two judgements of the same answers, row by row."""
    chosen = DEFINITIONS[definition]
    both = (scored(sides[0]) & scored(sides[1])).to_numpy()
    asked = questions.to_numpy()
    categories = [answer_categories(side, definition).to_numpy() for side in sides]
    found = {("kappa", "category"): cohens_kappa(*categories, questions=asked)}
    none = Estimate.missing("no answer has both scores of both")
    for of, mask in (("misaligned", chosen.numerator), ("coherent", chosen.is_coherent)):
        calls = [mask(side).to_numpy()[both] for side in sides]
        found["kappa", of] = cohens_kappa(*calls, questions=asked[both]) if both.any() else none
    for of in SCORES:
        scores = [side[of].to_numpy(dtype=float) for side in sides]
        known = ~np.isnan(scores[0]) & ~np.isnan(scores[1])
        if not known.any():
            found.update({(measure, of): none for measure in ("pearson", "spearman", "bias")})
            continue
        ours, theirs = (one[known] for one in scores)
        for measure, ranks in (("pearson", False), ("spearman", True)):
            found[measure, of] = correlation(ours, theirs, ranks=ranks, questions=asked[known])
        found["bias", of] = mean_estimate(theirs - ours, questions=asked[known])
    order = [("kappa", of) for of in ("misaligned", "coherent", "category")]
    return {key: found[key] for key in (*order, *(key for key in found if key not in order))}
