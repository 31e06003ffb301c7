"""Whether steering a latent changes the EM rate: compared with matched random latents, or with no change."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.special import stdtr
from scipy.stats import false_discovery_control

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.statistics.max_statistic import max_statistic_p
from persona_probe.statistics.rate_differences import FLIPS
from persona_probe.statistics.score_intervals import normal_quantile


def p_against_matches(table: pd.DataFrame, nulls: pd.DataFrame) -> pd.Series[float]:
    """Two-sided p of each latent's effect differing from that of matched latents.

    A latent is compared with the mean of its own matches, by Student's t for one further draw from the same latents,
    whose spread is the larger of its own matches' and of that of all matches around their means, which gives the
    degrees of freedom. Effects share the unsteered answers, which therefore cancel here; the sampling error that is
    left is that of the latent's own rate. It is a lower bound of the spread, because matches may all agree where their
    rate is 0 or 1; it is taken from the rate's interval as if that were normal, which makes it no smaller than it is.

    Args:
        table: columns ``latent``, ``effect``, ``em_low`` and ``em_high``.
        nulls: columns ``latent`` and ``effect``, one row per matched latent.

    Returns:
        One p per row of ``table``; NaN if the effect or its null is missing.
    """
    usable = nulls.dropna(subset=["effect"])
    groups = usable.groupby("latent")["effect"]
    freedom = len(usable) - groups.ngroups
    if freedom < 1:
        return pd.Series(np.nan, index=table.index)
    together = float(((usable["effect"] - groups.transform("mean")) ** 2).sum()) / freedom
    of_latent = table["latent"].map(groups.var()).fillna(0.0)
    sampling = ((table["em_high"] - table["em_low"]) / (2 * normal_quantile(0.95))) ** 2
    variance = np.maximum(np.maximum(of_latent, together), sampling)
    distance = table["effect"] - table["latent"].map(groups.mean())
    t = distance / np.sqrt(variance * (1 + 1 / table["latent"].map(groups.size())))
    return pd.Series(2 * stdtr(freedom, -np.abs(t.to_numpy(dtype=float))), index=table.index)


def p_of_no_change(unsteered: pd.DataFrame, steered: pd.DataFrame, definition: str) -> float:
    """Two-sided p of steering leaving the EM rate as it is, by sign flips of whole questions.

    Each question's part of the change is as likely to be negative if nothing changed (Fisher 1935, "The design of
    experiments", section 21). `persona_probe.rate_change` turns the same flips into its interval, which leaves out 0
    where p <= 0.05, if both tables are of one run and each question
    has an answer that counts in both.

    Args:
        unsteered: the judged answers of the model as it is.
        steered: the judged answers to the same questions.
        definition: which EM rate.

    Returns:
        The p, never below 1 / 2 ** (questions - 1); NaN if a rate is missing.

    >>> import pandas as pd
    >>> from persona_probe.latents.causal.effect_tests import p_of_no_change
    >>> plain = pd.DataFrame({"question": list("abcdefgh"), "aligned": 0, "coherent": 90})
    >>> p_of_no_change(plain, plain.assign(aligned=[95, 95, 95, 0, 95, 95, 95, 95]), "betley")
    0.015625
    """
    chosen, parts, rates = DEFINITIONS[definition], [], []
    for table in (unsteered, steered):
        bottom = chosen.denominator(table)
        counted = table.loc[bottom, ["question"]].assign(top=chosen.numerator(table)[bottom].astype(float))
        if counted.empty:
            return math.nan
        parts.append(counted)
        rates.append(float(counted["top"].mean()))
    change = rates[1] - rates[0]
    rows = np.concatenate(
        [
            (sign * (part["top"].to_numpy() - rate) + change / 2) / len(part)
            for sign, part, rate in zip((-1.0, 1.0), parts, rates, strict=True)
        ]
    )
    questions = pd.concat(parts)["question"].to_numpy()
    return float(max_statistic_p(rows[:, None], questions=questions, n_permutations=FLIPS)[0])


def corrected(p: pd.Series[float]) -> pd.Series[float]:
    """Benjamini and Hochberg's q of the p values that are not NaN."""
    q, finite = p.copy(), p.notna()
    if finite.any():
        q[finite] = false_discovery_control(p[finite].to_numpy())
    return q
