"""The time for cross-validated probes of all layers, compared with a loop over scikit-learn, and for a monitor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import persona_probe as pp
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, speeds, summary
from persona_probe.linear.fit import fit_linear
from persona_probe.probes.cross_validation import training_rows
from persona_probe.probes.inputs import assign_folds
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.monitoring import monitor

FOLDS, GROUPS = 5, 20
LOOPED_LAYERS = 2
FEWEST_ROUNDS, MOST_ROUNDS = 2, 3
LARGEST_DIFFERENCE = 1e-3
DIALOGUES, NEW_TOKENS = 32, 32
ROWS = [
    Row(
        "probes.speedup_vs_sklearn", "cross-validated probes of all layers, against looping scikit-learn", "times", True
    ),
    Row("probes.speedup_vs_sklearn_lbfgs", "the same, against its default solver at its default tolerance", "times"),
    Row("probes.monitor_vs_plain", "time to generate with every token scored by a probe, over without", "times", True),
]
HOW = f"""\
Logistic probes (C = 1, standardised) of 28 layers of made-up activations: 4,000 dialogues, 1,024 features whose
variances fall as 1/k in a random basis, and a class direction. Ours is what users call, `cross_validate_probe`, on the
device: {FOLDS} folds by group ({GROUPS} groups), the refit on all dialogues, and out-of-fold AUROC and average
precision with their intervals, with `on_leak="ignore"`. scikit-learn loops over layers, the same folds and the refit on
the CPU (`make_pipeline(StandardScaler(), LogisticRegression(...))`, `decision_function`, `roc_auc_score`):
`newton-cholesky` at tolerance 1e-10 in float64, and its default (`lbfgs`, tolerance 1e-4, float32, as many iterations
as it takes). Ours is timed on all layers, scikit-learn on {LOOPED_LAYERS} of them and its time scaled to all. The three
are timed in turn, {FEWEST_ROUNDS} or {MOST_ROUNDS} rounds; figures are medians of each round's ratio. The run fails if
coefficients on those {LOOPED_LAYERS} layers (`fit_linear`, not timed) differ from `newton-cholesky`'s by more than
{LARGEST_DIFFERENCE:g} of their length (the JSON has the largest difference). Monitor: greedy answers of {NEW_TOKENS}
tokens to {DIALOGUES} questions, with every token scored at the middle layer and the table read, over plain."""


def measure(setting: Setting) -> dict[str, Any]:
    probes, fitting = _fitting(setting)
    monitored, generating = _monitoring(setting)
    figures = {**probes, "monitor_vs_plain": summary(monitored)["median"]}
    return {"figures": figures, "raw": {**fitting, **generating, "ratios": {"monitor_vs_plain": summary(monitored)}}}


def _fitting(setting: Setting) -> tuple[dict[str, float], dict[str, Any]]:
    n, layers, width = (240, 4, 64) if setting.shape_name == "tiny" else (4000, 28, 1024)
    values, truth, groups = activations(n, layers, width)
    given = pp.Activations(values, pd.DataFrame({"id": range(n)}), tuple(range(layers)))
    folds = assign_folds(truth, groups, FOLDS, 0)
    coefficients: dict[str, list[np.ndarray]] = {}

    def ours() -> None:
        pp.probes.cross_validate_probe(
            given, truth, groups=groups, folds=FOLDS, on_leak="ignore", device=setting.device
        )

    def newton() -> None:
        exact: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000}
        coefficients["sklearn"] = _loop(values, truth, folds, np.float64, **exact)

    def lbfgs() -> None:
        coefficients["sklearn_lbfgs"] = _loop(values, truth, folds, np.float32, max_iter=10_000)

    rounds = min(max(setting.rounds, FEWEST_ROUNDS), MOST_ROUNDS)
    timed = in_turn({"ours": ours, "sklearn": newton, "sklearn_lbfgs": lbfgs}, rounds, setting.device)
    timed = {
        name: [one * (1 if name == "ours" else layers / LOOPED_LAYERS) for one in took] for name, took in timed.items()
    }
    mine = fit_linear(values[:, :LOOPED_LAYERS], truth, train=training_rows(folds), device=setting.device)
    differences = {
        name: max(
            float(np.linalg.norm(one - other) / np.linalg.norm(other))
            for one, other in zip(mine.weights.reshape(-1, width), theirs, strict=True)
        )
        for name, theirs in coefficients.items()
    }
    if differences["sklearn"] > LARGEST_DIFFERENCE:
        raise RuntimeError(f"coefficients differ from scikit-learn's by {differences['sklearn']:.2g} of their length")
    speedups = {f"speedup_vs_{name}": summary(ratios(timed[name], timed["ours"])) for name in coefficients}
    raw = {
        "seconds": {name: summary(took) for name, took in timed.items()},
        "speedups": speedups,
        "largest_coefficient_difference": differences,
        "data": {"dialogues": n, "layers": layers, "d_model": width, "folds": FOLDS, "layers_looped": LOOPED_LAYERS},
    }
    return {name: speedup["median"] for name, speedup in speedups.items()}, raw


def activations(n: int, layers: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(dialogue, layer, d)`` float32, truth values, and group numbers."""
    rng = np.random.default_rng(0)
    truth, groups = rng.random(n) < 0.5, np.arange(n) % GROUPS
    deviations = np.arange(1, width + 1) ** -0.5
    planted = max(1, width // 50)  # in a direction of middling variance, as persona directions are
    values = np.empty((n, layers, width), dtype=np.float32)
    for layer in range(layers):
        basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
        drawn = rng.normal(size=(n, width))
        drawn[:, planted] += np.where(truth, 1.0, -1.0)
        values[:, layer] = (drawn * deviations) @ basis + 3 * rng.normal(size=width) * deviations.mean()
    return values, truth, groups


def _loop(
    values: np.ndarray, truth: np.ndarray, folds: np.ndarray, precision: type, **settings: Any
) -> list[np.ndarray]:
    """Coefficients for raw features, problem after problem, layer after layer; computes out-of-fold AUROCs too."""
    coefficients, scores = [], np.empty((len(truth), LOOPED_LAYERS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for rows in training_rows(folds):
            for layer in range(LOOPED_LAYERS):
                features: np.ndarray = values[:, layer].astype(precision)
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, **settings))
                probe.fit(features[rows], truth[rows])
                coefficients.append(probe[-1].coef_[0] / probe[0].scale_)
                if not rows.all():
                    scores[~rows, layer] = probe.decision_function(features[~rows])
    for layer in range(LOOPED_LAYERS):
        roc_auc_score(truth, scores[:, layer])
    return coefficients


def _monitoring(setting: Setting) -> tuple[list[float], dict[str, Any]]:
    model = setting.model
    asked = [dialogue.without_answer() for dialogue in setting.dialogues[:DIALOGUES]]
    middle = model.n_layers // 2
    values = np.random.default_rng(0).normal(size=(64, 1, model.d_model)).astype(np.float32)
    probes = LayerProbes("difference-of-means").fit(
        pp.Activations(values, pd.DataFrame({"id": range(64)}), (middle,)), np.arange(64) < 32
    )

    def plain() -> None:
        model.generate(asked, pp.Sampling(max_new_tokens=NEW_TOKENS, temperature=0.0))

    def monitored() -> None:
        with monitor(model, probes, layer=middle) as scores:
            plain()
        if not len(scores.table):
            raise RuntimeError("the monitor scored nothing")

    timed = in_turn({"plain": plain, "monitor": monitored}, setting.rounds, setting.device)
    raw = {"dialogues": len(asked), "variants": speeds(timed, NEW_TOKENS * len(asked))}
    return ratios(timed["monitor"], timed["plain"]), raw
