import math
import warnings

import pytest
import torch

import persona_probe as pp
from persona_probe.latents.fit import Fit, RunningFit
from persona_probe.latents.sae import LatentWarning


def test_fvu_is_squared_error_over_variance_whatever_the_batches():
    x = torch.randn(50, 6, dtype=torch.float64) * 2 + 1000  # a mean that float32 sums would drown in
    made = x + 0.3 * torch.randn(50, 6, dtype=torch.float64)
    expected = ((x - made).square().sum() / (x - x.mean(dim=0)).square().sum()).item()
    for sizes in ([50], [1, 20, 29]):
        fit = RunningFit()
        for part, other in zip(x.split(sizes), made.split(sizes), strict=True):
            fit.add(part, other, active=3 * len(part))
        found = fit.result()
        assert found.fvu == pytest.approx(expected, rel=1e-6)
        assert (found.l0, found.tokens) == (3.0, 50)


def test_tokens_that_do_not_vary_have_no_fvu_and_no_warning(sae):
    fit = RunningFit()
    fit.add(torch.ones(1, 6), torch.zeros(1, 6), 2)
    assert math.isnan(fit.result().fvu)
    assert RunningFit().result().tokens == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.result().check(sae, "llama")


def test_a_bad_fit_is_warned_of_and_a_worthless_one_refused(sae):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Fit(0.39, 5.0, 100).check(sae, "llama")
    with pytest.warns(LatentWarning, match=r"leaves 50% of the variance of llama's layer 1 unexplained"):
        Fit(0.5, 5.0, 100).check(sae, "llama")
    with pytest.raises(pp.PersonaProbeError, match=r"leaves 950%.*allow_unrelated=True"):
        Fit(9.5, 5.0, 100).check(sae, "llama")
    with pytest.warns(LatentWarning, match="leaves 950%"):
        Fit(9.5, 5.0, 100).check(sae, "llama", allow_unrelated=True)
