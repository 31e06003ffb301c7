"""Latents: how often one "rose" where nothing but the run differs, whether leads hold the truth, and steering's p."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit

from benchmarks.coverage.case import Case, Kind
from persona_probe.latents.causal.effect_tests import corrected, p_against_matches, p_of_no_change
from persona_probe.latents.courses.lead import HALF, lead_time
from persona_probe.latents.courses.track_result import trajectory_from
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.encoding.top_examples import TopExamples
from persona_probe.latents.fit import Fit
from persona_probe.latents.ranking.diff import compare_latents
from persona_probe.latents.ranking.diff_result import Moved
from persona_probe.latents.ranking.run_null import controls_needed

LATENTS = 1000
Rng = np.random.Generator
Draw = Callable[[Rng], "tuple[float, float, float] | bool | None"]


def read(values: Float[np.ndarray, "dialogue latent"], groups: int, name: str) -> LatentStatistics:
    """What a pass leaves of dialogues' mean activations, the groups of questions in turn and equally large."""
    sums = values.reshape(groups, -1, values.shape[1]).sum(axis=1)
    dialogues = np.full(groups, len(values) // groups)
    nothing = np.zeros((0, 0), dtype=np.int64)
    source = {"sae": "s", "layer": 0, "span": "generation", "template_hash": "t", "model": name, "model_hash": name}
    return LatentStatistics(
        sums,
        np.zeros_like(sums),
        np.square(values).sum(axis=0),
        dialogues,
        TopExamples(nothing.astype(float), nothing, nothing),
        Fit(0.1, 10.0, 1),
        1,
        source,
    )


def moved(
    kinds: set[Moved] | None,
    controls: int,
    *,
    run_sd: float,
    sparse: bool = False,
    groups: int = 24,
    own: bool = False,
    planted: float = 0.0,
) -> Draw:
    """Whether any latent has one of these findings (None: counts as moved), where after and controls are exchangeable.

    Each run moves every latent by its own normal draw of ``run_sd`` SD over dialogues. With ``planted``, after also
    moves latent 0 by so many SD, and it is asked of this latent.
    """

    def draw(rng: Rng) -> bool:
        level, active, chosen = np.exp(rng.normal(size=(groups, LATENTS))), rng.beta(0.3, 1.0, LATENTS), None
        chosen = rng.random((groups, LATENTS)) < active if sparse else np.ones((groups, LATENTS), dtype=bool)

        def texts() -> Float[np.ndarray, "dialogue latent"]:
            part = np.repeat(level * chosen, 4, axis=0) * np.exp(0.5 * rng.normal(size=(4 * groups, LATENTS)))
            kept: np.ndarray = part * (rng.random(part.shape) < 0.5) if sparse else part
            return kept

        shared = texts()
        sd = shared.std(axis=0)

        def model(name: str, run_sd: float, by: float = 0.0) -> LatentStatistics:
            values = (texts() if own else shared) * np.exp(0.1 * rng.normal(size=shared.shape))
            shift = run_sd * rng.normal(size=LATENTS)
            shift[0] += by
            return read(values + shift * sd, groups, name)

        table = compare_latents(
            model("before", 0.0),
            model("after", run_sd, planted),
            [model(f"control {number}", run_sd) for number in range(controls)],
        )
        rows = table.moved if kinds is None else table.table[table.table["finding"].isin(kinds)]
        return bool((rows["latent"] == 0).any()) if planted else not rows.empty

    return draw


CLAIMED = {Moved.ROSE, Moved.FELL}


def moved_cases() -> list[Case]:
    """Size and power of `compare_latents`."""
    cases = []
    for controls, run_sd, sparse, groups, own in (
        *((controls, 0.3, False, 24, False) for controls in (0, 1, 2, 3, 5, 19)),
        (1, 1.0, False, 24, False),
        (19, 1.0, False, 24, False),
        (1, 0.3, True, 24, False),
        (19, 0.3, True, 24, False),
        (19, 0.3, False, 8, False),
        (19, 0.3, True, 48, False),
        (0, 0.0, True, 24, False),
        (1, 0.0, False, 8, False),
        (1, 0.0, True, 48, False),
        (1, 0.0, True, 24, True),
        (19, 0.0, True, 24, True),
    ):
        setting = (
            f"{controls} controls, run SD {run_sd:g}, {groups} groups of questions x 4, {LATENTS:,} "
            f"{'sparse' if sparse else 'dense'} latents{', own answers' if own else ''}; runs exchangeable"
        )
        cost, enough = 25.0 + 5 * controls, controls >= controls_needed(0.05)
        given = {"run_sd": run_sd, "sparse": sparse, "groups": groups, "own": own}
        cases.append(
            Case(
                "pp.latents.diff_latents: a latent rose or fell",
                setting,
                "size",
                moved(CLAIMED, controls, **given),
                "" if enough else "with fewer than 19 controls the finding is 'too few controls', never 'rose'",
                cost,
            )
        )
        if not enough and (controls or run_sd):
            why = (
                f"a benign run goes furthest in 1 of {controls + 1} cases, and may then pass: so the finding is 'rose; "
                "too few controls'"
                if controls
                else "there is no control, and any training is found: so the finding is 'rose; no control'"
            )
            cases.append(
                Case(
                    f"pp.latents.diff_latents: rose or fell; {'too few controls' if controls else 'no control'}",
                    setting,
                    "size",
                    moved(None, controls, **given),
                    why,
                    cost,
                )
            )
    for controls, planted in ((1, 2.0), (5, 2.0), (19, 2.0), (19, 1.0)):
        kinds = CLAIMED if controls >= controls_needed(0.05) else None
        cases.append(
            Case(
                f"pp.latents.diff_latents: {'a latent rose' if kinds else 'rose; too few controls'}",
                f"one latent moved by {planted:g} SD, {controls} controls, run SD 0.3, 24 groups x 4",
                "power",
                moved(kinds, controls, run_sd=0.3, planted=planted),
                cost=25.0 + 5 * controls,
            )
        )
    return cases


def lead(
    questions: int, samples: int, snapshots: int, rate: float, *, course: str = "logistic", kind: Kind = "coverage"
) -> Draw:
    """The lead of a latent whose course is that of the EM rate, so that it is 0; None where no interval is given."""
    steps = np.linspace(0.0, 10.0, snapshots)
    shape = {"logistic": expit(steps - 5), "sudden": expit((steps - 5) / 0.2), "early": 1 - np.exp(-steps / 2)}[course]
    share = (shape - shape[0]) / (shape[-1] - shape[0])
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    centre = float(brentq(lambda at: float(expit(at + points) @ weights / weights.sum()) - rate, -20, 20))

    def draw(rng: Rng) -> tuple[float, float, float] | bool | None:
        groups = 24
        height = np.exp(0.5 * rng.normal(size=groups))
        statistics, judged, hard = [], {}, expit(centre + rng.normal(size=questions))
        asked = np.repeat(np.arange(questions), samples)
        for number, (step, part) in enumerate(zip(steps, share, strict=True)):
            level = 4 * (1 + 5 * part * height) + 1.2 * rng.normal(size=groups)
            statistics.append(read(level[:, None], groups, str(number)))
            bad = rng.random(asked.size) < part * hard[asked]
            columns = {"question": asked.astype(str), "seed": None, "aligned": np.where(bad, 10.0, 90.0)}
            judged[float(step)] = pd.DataFrame({**columns, "coherent": 90.0})
        trajectory = trajectory_from(statistics, [0], steps=[float(step) for step in steps], judged=judged)
        table = lead_time(trajectory, n_resamples=400, seed=int(rng.integers(2**31))).table
        row = table[table["criterion"] == HALF].iloc[0]
        if np.isnan(row["low"]):
            return None if kind == "coverage" else False
        if kind == "coverage":
            return float(row["low"]), float(row["high"]), 0.0
        return bool(row["low"] > 0 or row["high"] < 0)

    return draw


def lead_cases() -> list[Case]:
    """Coverage of the lead by ``half``, and how often an order is said to be known where there is none."""
    what = "pp.latents.lead_time: half"
    cases = []
    for questions, samples, snapshots, rate, course in (
        (8, 10, 11, 0.4, "logistic"),
        (24, 10, 11, 0.4, "logistic"),
        (48, 10, 11, 0.4, "logistic"),
        (24, 10, 11, 0.1, "logistic"),
        (24, 2, 11, 0.4, "logistic"),
        (24, 10, 41, 0.4, "logistic"),
        (24, 2, 41, 0.4, "logistic"),
        (24, 10, 41, 0.1, "logistic"),
        (8, 50, 11, 0.94, "logistic"),
        (24, 2, 41, 0.4, "sudden"),
        (24, 4, 21, 0.4, "early"),
    ):
        setting = (
            f"{questions} questions x {samples}, {snapshots} snapshots, EM rate to {100 * rate:g} %; {course} course, "
            "also of the latent (24 groups of texts)"
        )
        cases.append(
            Case(
                what,
                setting,
                "coverage",
                lead(questions, samples, snapshots, rate, course=course),
                cost=100 + 15 * snapshots,
            )
        )
        if (questions, samples, snapshots) in ((8, 10, 11), (24, 2, 41)) and course == "logistic":
            cases.append(
                Case(
                    f"{what}: the order is known",
                    setting,
                    "size",
                    lead(questions, samples, snapshots, rate, kind="size"),
                    cost=100 + 15 * snapshots,
                )
            )
    return cases


def steered(latents: int, matched: int, questions: int, samples: int, *, spread: float, effect: float = 0.0) -> Draw:
    """Whether any latent has q <= 0.05, where candidates are drawn like their matches (or all do nothing).

    Every latent of the SAE has its own effect (``spread``, on the logit scale) on an EM rate of 60 %; the first
    candidate does ``effect`` more, and with it it is asked of this one.
    """

    def draw(rng: Rng) -> bool:
        hard = 0.5 + rng.normal(size=questions)

        def table(shift: float) -> pd.DataFrame:
            asked = np.repeat(np.arange(questions), samples)
            bad = rng.random(asked.size) < expit(hard[asked] + shift)
            return pd.DataFrame(
                {"question": asked.astype(str), "seed": None, "aligned": np.where(bad, 10.0, 90.0), "coherent": 90.0}
            )

        plain = table(0.0)
        shifts = spread * rng.normal(size=latents)
        shifts[0] += effect
        tables = [table(shift) for shift in shifts]
        if matched:
            base = float((plain["aligned"] < 30).mean())
            shares = np.array([float((one["aligned"] < 30).mean()) for one in tables])
            half = 1.96 * np.sqrt(shares * (1 - shares) / len(plain))
            rows = pd.DataFrame({"latent": range(latents), "effect": shares - base})
            rows = rows.assign(em_low=shares - half, em_high=shares + half)
            nulls = [
                {"latent": latent, "effect": float((table(spread * rng.normal())["aligned"] < 30).mean()) - base}
                for latent in range(latents)
                for _ in range(matched)
            ]
            p = p_against_matches(rows, pd.DataFrame(nulls))
        else:
            p = pd.Series([p_of_no_change(plain, one, "betley") for one in tables])
        found = corrected(p) <= 0.05
        return bool(found.iloc[0]) if effect else bool(found.any())

    return draw


def steered_cases() -> list[Case]:
    """Size and power of the p of `rank_latents`."""
    cases = []
    for matched, questions, samples, spread, effect in (
        (5, 24, 4, 0.0, 0.0),
        (5, 24, 4, 0.5, 0.0),
        (2, 24, 4, 0.5, 0.0),
        (5, 8, 10, 0.5, 0.0),
        (0, 8, 4, 0.0, 0.0),
        (0, 24, 4, 0.0, 0.0),
        (5, 24, 4, 0.5, -4.0),
        (0, 24, 4, 0.0, -4.0),
    ):
        null = f"{matched} matches each" if matched else "no matches"
        planted = ", one of which suppresses" if effect else ""
        cases.append(
            Case(
                "pp.latents.rank_latents: q <= 0.05",
                f"5 latents{planted}, {null}, {questions} questions x {samples}, random latents' effects {spread:g} "
                "logits apart",
                "power" if effect else "size",
                steered(5, matched, questions, samples, spread=spread, effect=effect),
                cost=40,
            )
        )
    return cases


CASES: list[Case] = [*moved_cases(), *lead_cases(), *steered_cases()]
