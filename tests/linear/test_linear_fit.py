"""Every kind equals scikit-learn, on every training set that is solved together."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persona_probe.errors import PersonaProbeError
from persona_probe.linear import logistic
from persona_probe.linear.fit import KINDS, fit_linear


def planted(n, d, *, signal=1.0, share=0.5, layers=2, seed=0, dtype=np.float32):
    """Features whose variances fall by a power law, far from the origin, with a class direction."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    spectrum = np.arange(1, d + 1) ** -0.5
    values = rng.normal(size=(n, layers, d)) * spectrum @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    direction = rng.normal(size=(layers, d)) / np.sqrt(d)
    values += signal * truth[:, None, None] * direction + 3 * rng.normal(size=d)
    return values.astype(dtype), truth


def folds(n, count=4, seed=0):
    """Training rows of each fold, and all rows."""
    number = np.random.default_rng(seed).integers(0, count, n)
    return np.stack([*(number != fold for fold in range(count)), np.ones(n, dtype=bool)])


def reference(model, values, truth, standardize=True):
    """scikit-learn's coefficients for raw features."""
    scaler = StandardScaler(with_mean=standardize, with_std=standardize)
    make_pipeline(scaler, model).fit(values.astype(np.float64), truth)
    scale = scaler.scale_ if standardize else 1.0
    weights = np.ravel(model.coef_) / scale
    return weights, float(np.ravel(model.intercept_)[0]) - weights @ (scaler.mean_ if standardize else 0 * weights)


def compared(kind, model, values, truth, train, **settings):
    """Largest relative difference of weights, and of decisions, over problems and layers."""
    fitted = fit_linear(values, truth, kind, train=train, **settings)
    decisions = fitted.decision(values)
    worst = 0.0
    for problem, rows in enumerate(train):
        for layer in range(values.shape[1]):
            standardize = settings.get("standardize", True)
            weights, intercept = reference(model, values[rows, layer], truth[rows], standardize)
            worst = max(worst, np.linalg.norm(fitted.weights[problem, layer] - weights) / np.linalg.norm(weights))
            theirs = values[:, layer].astype(np.float64) @ weights + intercept
            np.testing.assert_allclose(decisions[problem, :, layer], theirs, atol=2e-4 * np.abs(theirs).max())
            ours = roc_auc_score(truth, decisions[problem, :, layer])
            assert ours == pytest.approx(roc_auc_score(truth, theirs), abs=1e-4)
    return worst


def exact_logistic(C=1.0):
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)


@pytest.mark.parametrize(
    ("n", "d", "how"),
    [
        (300, 40, {}),
        (300, 40, {"dtype": np.float64}),
        (90, 200, {}),  # fewer rows than features
        (300, 20, {"signal": 40.0}),  # separable
        (400, 30, {"share": 0.05}),  # unbalanced
        (60, 60, {"signal": 0.0}),
    ],
)
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_equals_scikit_learn(n, d, how, C):
    values, truth = planted(n, d, **how)
    assert compared("logistic", exact_logistic(C), values, truth, folds(n), C=C) < 1e-4


def test_logistic_without_standardising_equals_scikit_learn():
    values, truth = planted(300, 40)
    assert compared("logistic", exact_logistic(), values, truth, folds(300), standardize=False) < 1e-4


@pytest.mark.parametrize(("n", "d"), [(300, 40), (90, 200)])
def test_ridge_equals_scikit_learn(n, d):
    values, truth = planted(n, d)
    rows = folds(n)
    fitted = fit_linear(values, truth, "ridge", train=rows, C=0.1)
    for problem, train in enumerate(rows):
        for layer in range(2):
            weights, intercept = reference(Ridge(alpha=10.0), values[train, layer], np.where(truth[train], 1.0, -1.0))
            np.testing.assert_allclose(fitted.weights[problem, layer], weights, rtol=1e-6, atol=1e-9)
            assert fitted.intercept[problem, layer] == pytest.approx(intercept, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 40), (90, 200)])
def test_lda_has_scikit_learns_shrunk_covariance(n, d):
    values, truth = planted(n, d, share=0.3)
    rows = folds(n)
    fitted = fit_linear(values, truth, "lda", train=rows)
    for problem, train in enumerate(rows):
        x, y = values[train, 0].astype(np.float64), truth[train]
        means = x[y].mean(axis=0), x[~y].mean(axis=0)
        covariance, _ = ledoit_wolf(x - np.where(y[:, None], *means), assume_centered=True)
        weights = np.linalg.solve(covariance, means[0] - means[1])
        np.testing.assert_allclose(fitted.weights[problem, 0], weights, rtol=1e-5, atol=1e-8)
        midpoint = weights @ (means[0] + means[1]) / 2
        expected = np.log(y.sum() / (~y).sum()) - midpoint
        assert fitted.intercept[problem, 0] == pytest.approx(expected, abs=1e-5)


def test_difference_of_means_is_zero_half_way():
    values, truth = planted(50, 8)
    fitted = fit_linear(values, truth, "difference-of-means")
    above, below = values[truth].mean(axis=0), values[~truth].mean(axis=0)
    np.testing.assert_allclose(fitted.weights[0], above - below, atol=1e-5)
    np.testing.assert_allclose(fitted.decision(((above + below) / 2)[None])[0, 0], 0.0, atol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_constant_features_are_left_alone_as_in_scikit_learn(kind):
    """One constant throughout; one only in the rows of the first problem."""
    values, truth = planted(200, 10, layers=1)
    train = folds(200)
    values[:, 0, 3] = 0.1
    values[:, 0, 7] = np.where(train[0], 1e3 + 0.3, values[:, 0, 7])
    model = exact_logistic() if kind == "logistic" else None
    if model is not None:
        assert compared(kind, model, values, truth, train) < 1e-3
    fitted = fit_linear(values, truth, kind, train=train)
    assert abs(fitted.weights[:, 0, 3]).max() < 1e-6
    assert abs(fitted.weights[0, 0, 7]) < 1e-6


def test_a_word_that_only_held_out_rows_hold_is_constant():
    """Counts of words: in training always zero, but for the rounding that centring on all rows leaves."""
    rng = np.random.default_rng(0)
    truth, topic = rng.random(600) < 0.9, np.arange(600) % 6
    values = rng.poisson(0.2, size=(600, 1, 60)).astype(float)
    values[:, 0, :12] *= topic[:, None] == np.arange(12) % 6
    train = topic != np.arange(6)[:, None]
    assert compared("logistic", exact_logistic(), values, truth, train) < 1e-3


def test_a_far_off_feature_costs_no_digits():
    """Residual streams hold features that stand thousands of standard deviations from 0."""
    values, truth = planted(300, 20, layers=1, dtype=np.float64)
    values[:, 0, 2] += 1e5
    assert compared("logistic", exact_logistic(), values, truth, folds(300)) < 1e-4


def test_problems_can_have_labels_of_their_own():
    values, truth = planted(200, 12)
    rng = np.random.default_rng(1)
    labels = np.stack([truth, rng.permutation(truth), rng.permutation(truth)])
    together = fit_linear(values, labels)
    for problem, own in enumerate(labels):
        np.testing.assert_allclose(together.weights[problem], fit_linear(values, own).weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_problem_does_not_train_on_does_not_matter(kind):
    values, truth = planted(120, 10)
    train = folds(120)[:1]
    other_values, other_truth = values.copy(), truth.copy()
    other_values[~train[0]], other_truth[~train[0]] = 7.0, False
    one = fit_linear(values, truth, kind, train=train)
    two = fit_linear(other_values, other_truth, kind, train=train)
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_fitted_is_refused():
    values, truth = planted(30, 4)
    with pytest.raises(PersonaProbeError, match="unknown kind of classifier 'svm': choose one of logistic"):
        fit_linear(values, truth, "svm")
    with pytest.raises(PersonaProbeError, match=r"C is -1"):
        fit_linear(values, truth, C=-1)
    only = np.zeros((2, 30), dtype=bool)
    only[0], only[1, np.flatnonzero(truth)[:3]] = True, True
    with pytest.raises(PersonaProbeError, match="problem 1 has 3 rows, all True"):
        fit_linear(values, truth, train=only)
    with pytest.raises(PersonaProbeError, match="not all finite"):
        fit_linear(np.where(values > values.mean(), np.nan, values), truth)
    with pytest.raises(PersonaProbeError, match="truth has shape"):
        fit_linear(values, truth[:5])
    with pytest.raises(PersonaProbeError, match=r"expected \(row, layer, d\)"):
        fit_linear(values[:, 0], truth)


@pytest.mark.parametrize("C", [True, np.bool_(True), "1", None, 0, -1.0, np.nan, np.inf, np.array([1.0, 2.0])])
@pytest.mark.parametrize("kind", ["logistic", "lda"])
def test_what_is_no_strength_of_a_penalty_is_refused(kind, C):
    with pytest.raises(PersonaProbeError, match=r"C is .*; it must be a positive, finite number"):
        fit_linear(*planted(30, 4), kind, C=C)


def test_any_positive_number_will_do():
    values, truth = planted(60, 4)
    expected = fit_linear(values, truth, C=2.0).weights
    for C in (2, np.float32(2), np.int64(2)):
        np.testing.assert_array_equal(fit_linear(values, truth, C=C).weights, expected)


@pytest.mark.parametrize(("standardize", "way_out"), [(True, "give a smaller C$"), (False, "C, or standardize=True$")])
def test_a_fit_that_does_not_converge_says_so(monkeypatch, standardize, way_out):
    monkeypatch.setattr(logistic, "_MAX_NEWTON", 2)
    expected = (
        r"problem 0 of the layer at index 0 has not converged after 2 steps \(1 of its 1 problems have not\): its "
        rf"gradient is .* times its weights, .* C=1, standardize={standardize}, 100 rows to train on and 10 features, "
    )
    with pytest.raises(PersonaProbeError, match=f"{expected}.*{way_out}"):
        fit_linear(*planted(100, 10), standardize=standardize)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind):
    values, truth = planted(300, 40)
    train = folds(300)
    here, there = (fit_linear(values, truth, kind, train=train, device=device) for device in (None, "cuda"))
    np.testing.assert_allclose(here.weights, there.weights, rtol=1e-3, atol=1e-5)
