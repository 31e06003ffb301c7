"""Data on which float32, or a tolerance that knows no rounding, gives up: the optimum is found, or the error helps."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.fit import fit_linear
from persona_probe.linear.preconditioner import Diagonal, NotFactorisedError, Preconditioner
from persona_probe.linear.problem import Problems
from persona_probe.linear.scaling import scaled


def objective(values, truth, weights, intercept, C):
    margin = np.where(truth, 1.0, -1.0) * (values @ weights + intercept)
    return C * np.logaddexp(0.0, -margin).sum() + 0.5 * weights @ weights


def gradient(values, truth, weights, intercept, C):
    sign = np.where(truth, 1.0, -1.0)
    residual = -C * sign * expit(-sign * (values @ weights + intercept))
    return np.append(values.T @ residual + weights, residual.sum())


def check(values, truth, C=1.0, standardize=True, train=None, peer=True):
    """The optimum of every problem: a gradient of about 0, and no worse an objective than scikit-learn's."""
    fitted = fit_linear(values[:, None], truth, C=C, standardize=standardize, train=train)
    for problem, rows in enumerate([np.ones(len(values), dtype=bool)] if train is None else train):
        scaler = StandardScaler(with_std=standardize)  # centred: scikit-learn's solver needs it, the optimum does not
        x, y = scaler.fit_transform(values[rows].astype(np.float64)), truth[rows]
        scale = scaler.scale_ if standardize else 1.0
        weights = fitted.weights[problem, 0] * scale
        intercept = fitted.intercept[problem, 0] + fitted.weights[problem, 0] @ scaler.mean_
        ours = objective(x, y, weights, intercept, C)
        slope = gradient(x, y, weights, intercept, C)
        at_start = gradient(x, y, 0 * weights, np.log(y.sum() / (~y).sum()), C)
        rounding = 1e-12 * C * np.sqrt(len(x)) * np.linalg.norm(x)
        assert np.linalg.norm(slope[:-1]) <= 3e-5 * np.linalg.norm(weights) + 1e-6 * np.linalg.norm(at_start) + rounding
        assert abs(slope[-1]) <= 1e-4 * C * min(y.sum(), (~y).sum())
        if peer:
            model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x, y)
            theirs = objective(x, y, model.coef_[0], model.intercept_[0], C)
            assert ours <= theirs * (1 + 1e-9) + 1e-12
    return fitted


STRENGTHS = [1e-4, 1e-2, 1.0, 100.0, 1e4]


def normal(n, d, seed=0):
    """Features, and labels that two of them tell with noise."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d))
    return values, values[:, 0] + values[:, 1] + rng.normal(size=n) > 0


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("n", "d"), [(100, 300), (300, 40)])
def test_every_strength(n, d, standardize, C):
    values, truth = normal(n, d)
    check(values.astype(np.float32), truth, C, standardize)


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("spread", [1000, 5000])
def test_one_massive_feature_unstandardised(n, spread, C):
    """Residual streams have some; Woodbury's identity then subtracts what is nearly equal."""
    values, truth = normal(n, 512)
    values[:, 3] *= spread
    check(values.astype(np.float32), truth, C, standardize=False, peer=False)


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize(("n", "d"), [(100, 600), (400, 128)])
@pytest.mark.parametrize("standardize", [True, False])
def test_a_massive_feature_far_from_the_origin(n, d, standardize, C):
    values, truth = normal(n, d)
    values[:, 5] = 3000 + 50 * values[:, 5]
    values[:, 9] *= 200
    check(values.astype(np.float32), truth, C, standardize, peer=n > d)


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize(("n", "d"), [(20, 4000), (200, 2048)])
def test_far_fewer_rows_than_features(n, d, C):
    values, truth = normal(n, d)
    check(values.astype(np.float32), truth, C, peer=False)


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize("standardize", [True, False])
def test_rare_positives(standardize, C):
    rng = np.random.default_rng(0)
    values, truth = rng.normal(size=(700, 50)), np.arange(700) < 5
    values[:5, 0] += 2
    check(values, truth, C, standardize)


@pytest.mark.parametrize("C", [1.0, 1e4, 1e6])
@pytest.mark.parametrize("standardize", [True, False])
def test_separable(standardize, C):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 30))
    truth = values[:, 0] > 0
    values[:, 0] += 5 * np.where(truth, 1, -1)
    check(values, truth, C, standardize)


@pytest.mark.parametrize("C", STRENGTHS)
@pytest.mark.parametrize(("n", "d"), [(150, 5), (150, 300)])
@pytest.mark.parametrize("copies", [2, 3, 4])
def test_the_same_features_in_both_classes_give_no_weights(n, d, copies, C):
    """As where the same words stand under two prompts: the gradient is all rounding."""
    rng = np.random.default_rng(0)
    truth = np.arange(n // copies * copies) % copies == 0
    values = np.repeat(rng.normal(size=(n // copies, d)), copies, axis=0)
    counts = np.repeat((rng.random((n // copies, d)) < 0.1) * 1.0, copies, axis=0)
    for features, settings in [
        (values, {}),
        (values.astype(np.float32), {}),
        (counts, {}),
        (values * 1e3 + 1e4, {"standardize": False}),
    ]:
        fitted = fit_linear(features[:, None], truth, C=C, **settings)
        assert np.abs(fitted.weights).max() < 1e-6
        deviation = features - features.mean(axis=0)
        decision = deviation @ fitted.weights[0, 0] + fitted.intercept[0, 0] + features.mean(0) @ fitted.weights[0, 0]
        np.testing.assert_allclose(decision, np.log(1 / (copies - 1)), atol=1e-4)


def test_the_same_word_counts_in_folds():
    rng = np.random.default_rng(0)
    values = np.repeat((rng.random((60, 400)) < 0.02) * 1.0, 4, axis=0)
    train = (np.arange(240) // 40) % 5 != np.arange(5)[:, None]
    fitted = fit_linear(values[:, None], np.arange(240) % 4 == 0, C=1e4, train=train)
    assert np.abs(fitted.weights).max() < 1e-6


@pytest.mark.parametrize("size", [1e4, 1e6, 1e8, 1e18, 1e19])
@pytest.mark.parametrize(("n", "d"), [(300, 20), (60, 200)])
def test_huge_values_unstandardised_give_the_unpenalised_fit(n, d, size):
    """With more rows than features; with fewer the data are separable, and the weights as small as their scale."""
    values, truth = normal(n, d)
    fitted = check((values * size).astype(np.float32), truth, standardize=False, peer=False)
    if n > d:
        free = fit_linear(values[:, None], truth, C=1e8, standardize=False)
        np.testing.assert_allclose(fitted.weights * size, free.weights, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e-100, 1e100, 1e154, 1e160, 1e300])
def test_standardising_takes_out_every_scale(size):
    values, truth = normal(300, 20)
    for kind in ("logistic", "ridge"):
        expected = fit_linear(values[:, None], truth, kind).weights
        found = fit_linear((values * size)[:, None], truth, kind)
        np.testing.assert_allclose(found.weights * size, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "lda"])
def test_values_whose_products_are_infinite_are_refused(kind):
    values, truth = normal(300, 20)
    values = np.stack([values, values * 1e160], axis=1)
    with pytest.raises(PersonaProbeError, match=r"layer at index 1.*not finite.*scale"):
        fit_linear(values, truth, kind, standardize=False)


def test_features_of_many_scales():
    values, truth = normal(80, 200)
    scales = 10.0 ** np.random.default_rng(1).uniform(-4, 4, 200)
    check(values * scales, truth, standardize=False, peer=False)
    values, truth = normal(300, 20)
    check(values * 10.0 ** np.linspace(-4, 4, 20), truth, standardize=False)
    check((values + 50) * 10.0 ** np.linspace(-4, 4, 20), truth, standardize=False)


def test_many_problems_that_differ():
    """One preconditioner serves them all, and one that needs float64 does not spoil the others."""
    values, truth = normal(120, 300)
    values[:, 3] *= 2000
    rng = np.random.default_rng(2)
    train = rng.random((6, 120)) < np.linspace(0.3, 1.0, 6)[:, None]
    check(values.astype(np.float32), truth, 10.0, standardize=False, train=train, peer=False)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_hessian_that_is_not_finite_is_not_tried_for_ever(bad):
    features = torch.ones(5, 3)
    features[2, 1] = bad
    with pytest.raises(NotFactorisedError, match="not finite"):
        Preconditioner(features, torch.ones(5, dtype=torch.float64))
    with pytest.raises(NotFactorisedError, match="not finite"):
        Preconditioner(features, torch.ones(5, dtype=torch.float64), features @ features.T)


def test_both_preconditioners_solve():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(30, 6, generator=rng, dtype=torch.float64)
    curvature = torch.rand(30, generator=rng, dtype=torch.float64)
    bordered = torch.cat([features, torch.ones(30, 1)], dim=1)
    hessian = bordered.T @ (curvature[:, None] * bordered)
    hessian.diagonal()[:6] += 1.0
    right = torch.randn(2, 7, generator=rng, dtype=torch.float64)
    expected = torch.linalg.solve(hessian, right.T).T
    for gram in (None, features @ features.T):
        torch.testing.assert_close(Preconditioner(features, curvature, gram).solve(right), expected)
    about = Diagonal(features, curvature).solve(torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(about, about.T)
    assert bool((torch.linalg.eigvalsh(about) > 0).all())


def test_the_diagonal_preconditioner_alone_finds_the_optimum(monkeypatch):
    values, truth = normal(100, 30)
    expected = fit_linear(values[:, None], truth).weights
    monkeypatch.setattr(Preconditioner, "solve", lambda self, right: 0.0 * right)
    np.testing.assert_allclose(fit_linear(values[:, None], truth).weights, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "lda", "ridge"])
@pytest.mark.parametrize("constant", [0.0, 5.0, 0.1])
def test_constant_features_give_no_weights(kind, constant):
    truth = np.arange(60) < 20
    fitted = fit_linear(np.full((60, 1, 10), constant), truth, kind)
    np.testing.assert_allclose(fitted.weights, 0.0, atol=1e-9)
    if kind != "ridge":
        np.testing.assert_allclose(fitted.intercept, np.log(0.5), atol=1e-4)


def test_lda_refuses_classes_that_do_not_vary():
    truth = np.arange(60) < 20
    values = np.where(truth, 0.3, 0.1)[:, None, None] * np.ones((1, 1, 4))
    with pytest.raises(
        PersonaProbeError, match="no feature varies within the classes of problem 0 of the layer at ind"
    ):
        fit_linear(values, truth, "lda")


def test_lda_of_massive_and_repeated_features_is_finite():
    values, truth = normal(60, 10)
    assert np.isfinite(fit_linear((values * np.array([1e8] + [1e-4] * 9))[:, None], truth, "lda").weights).all()
    assert np.isfinite(fit_linear(np.hstack([values] * 20)[:, None], truth, "lda").weights).all()


@pytest.mark.parametrize("C", [1.0, 1e4, 1e8, 1e10, 1e12, 1e16])
def test_ridge_of_repeated_columns_shares_their_weight(C):
    values, truth = normal(60, 10)
    once = fit_linear(values[:, None], truth, "ridge", C=2 * C).weights[0, 0]
    twice = fit_linear(np.hstack([values, values])[:, None], truth, "ridge", C=C).weights[0, 0]
    np.testing.assert_allclose(twice[:10], once / 2, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(twice[10:], twice[:10], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("C", [1e2, 1e8, 1e10, 1e12, 1e16])
def test_ridge_with_a_massive_feature_and_few_rows(C):
    values, _ = normal(100, 600)
    values[:, 5] = 3000 + 50 * values[:, 5]
    truth = np.random.default_rng(0).random(100) < 0.5
    fitted = fit_linear((values * 10)[:, None], truth, "ridge", C=C, standardize=False)
    np.testing.assert_allclose(fitted.decision((values * 10)[:, None])[0, :, 0], np.where(truth, 1, -1), atol=1e-3)


def test_scales_are_those_of_the_values():
    values = torch.tensor(np.random.default_rng(0).normal(size=(50, 3)) * np.array([1e-200, 1.0, 1e200]))
    problems = Problems(values, torch.arange(50)[None] < 20, torch.ones(1, 50, dtype=torch.bool), 1.0, True, 0)
    data = scaled(problems)
    torch.testing.assert_close(data.features.std(dim=0, correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(data.features * data.scale + data.centre, values, rtol=1e-9, atol=0.0)
