"""What cross-validated probes of all layers cost beside a loop over scikit-learn, and what a monitor costs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import persona_probe as pp
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, seconds, speeds, summary
from persona_probe.linear.fit import fit_linear
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.monitor import monitor

FOLDS, GROUPS = 5, 20
LOOPED_LAYERS = 2
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
variances fall as 1/k in a random basis, and a class direction; {FOLDS} folds by group ({GROUPS} groups) and the refit,
in one call of `fit_linear`, on the device. scikit-learn loops over layers, folds and refit on the CPU
(`make_pipeline(StandardScaler(), LogisticRegression(...))`): `newton-cholesky` at tolerance 1e-10 in float64, and its
default (`lbfgs`, tolerance 1e-4, float32, as many iterations as it takes). It is timed on {LOOPED_LAYERS} layers,
once, and its time scaled to all of them. The run fails if coefficients of the first differ from ours by more than
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
    train = np.stack([groups % FOLDS != fold for fold in range(FOLDS + 1)])
    train[-1] = True
    ours = min(_ours(values, truth, train, setting) for _ in range(setting.rounds))
    fitted = fit_linear(values[:, :LOOPED_LAYERS], truth, train=train, device=setting.device)
    looped = {
        "sklearn": {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000},
        "sklearn_lbfgs": {"max_iter": 10_000},
    }
    took, differences = {}, {}
    for name, settings in looped.items():
        precision = np.float64 if name == "sklearn" else np.float32
        found: list[np.ndarray] = []
        spent = seconds(lambda s=settings, p=precision, f=found: f.extend(_loop(values, truth, train, p, s)))
        took[name] = spent * layers / LOOPED_LAYERS
        mine = fitted.weights.reshape(-1, width)
        differences[name] = max(
            float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in zip(mine, found, strict=True)
        )
    if differences["sklearn"] > LARGEST_DIFFERENCE:
        raise RuntimeError(f"coefficients differ from scikit-learn's by {differences['sklearn']:.2g} of their length")
    figures = {f"speedup_vs_{name}": spent / ours for name, spent in took.items()}
    raw = {
        "seconds": {"ours": ours, **took},
        "largest_coefficient_difference": differences,
        "data": {"dialogues": n, "layers": layers, "d_model": width, "folds": FOLDS, "layers_looped": LOOPED_LAYERS},
    }
    return figures, raw


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


def _ours(values: np.ndarray, truth: np.ndarray, train: np.ndarray, setting: Setting) -> float:
    return seconds(lambda: fit_linear(values, truth, train=train, device=setting.device), setting.device)


def _loop(
    values: np.ndarray, truth: np.ndarray, train: np.ndarray, precision: type, settings: dict[str, Any]
) -> list[np.ndarray]:
    """Coefficients for raw features, problem after problem, layer after layer."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for rows in train:
            for layer in range(LOOPED_LAYERS):
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, **settings))
                probe.fit(values[rows, layer].astype(precision), truth[rows])
                found.append(probe[-1].coef_[0] / probe[0].scale_)
    return found


def _monitoring(setting: Setting) -> tuple[list[float], dict[str, Any]]:
    model = setting.model
    asked = [dialogue.without_answer() for dialogue in setting.dialogues[:DIALOGUES]]
    middle = model.n_layers // 2
    values = np.random.default_rng(0).normal(size=(64, 1, model.d_model)).astype(np.float32)
    probes = LayerProbes("difference-of-means").fit(
        pp.Activations(values, pd.DataFrame({"id": range(64)}), (middle,)), np.arange(64) < 32
    )

    def plain() -> None:
        model.generate(asked, max_new_tokens=NEW_TOKENS, temperature=0.0)

    def monitored() -> None:
        with monitor(model, probes, layer=middle) as scores:
            plain()
        if not len(scores.table):
            raise RuntimeError("the monitor scored nothing")

    timed = in_turn({"plain": plain, "monitor": monitored}, setting.rounds, setting.device)
    raw = {"dialogues": len(asked), "variants": speeds(timed, NEW_TOKENS * len(asked))}
    return ratios(timed["monitor"], timed["plain"]), raw
