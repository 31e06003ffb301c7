"""Which latents point along a direction, and how near the best of them comes to a random one."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

import persona_probe as pp
from persona_probe.latents.ranking import agreement
from persona_probe.latents.ranking.agreement import latent_agreement
from persona_probe.latents.sae import LatentWarning
from persona_probe.statistics.nulls import isotropic_directions
from tests.latents.handmade import sae_of

D_MODEL, WIDTH, LAYER = 24, 300, 2


@pytest.fixture(scope="module")
def rows():
    return torch.randn(WIDTH, D_MODEL, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sae(rows):
    return sae_of(rows, LAYER)


def direction(vector, **card):
    return pp.Direction(np.stack([np.ones(D_MODEL), vector]).astype(np.float32), (0, LAYER), card)


def test_the_latent_that_is_the_direction_is_found_at_the_saes_layer(sae, rows):
    table = latent_agreement(sae, direction(-3.0 * rows[7].numpy(), name="evil")).table
    assert table.columns.tolist() == ["latent", "direction", "cosine", "null", "rank"]
    assert len(table) == WIDTH
    best = table.iloc[0]
    assert (best["latent"], best["direction"], best["rank"]) == (7, "evil", 1)
    assert best["cosine"] == pytest.approx(-1.0, abs=1e-6)
    assert table["cosine"].abs().is_monotonic_decreasing
    other = rows[table["latent"][1]].numpy()
    along = rows[7].numpy()
    expected = -other @ along / np.linalg.norm(other) / np.linalg.norm(along)
    assert table["cosine"][1] == pytest.approx(expected, abs=1e-6)
    assert abs(table["cosine"][1]) < best["null"] < 1.0


def test_the_null_is_what_the_best_latent_reaches_with_a_random_direction(sae):
    null = latent_agreement(sae, direction(np.ones(D_MODEL))).table["null"][0]
    fresh = isotropic_directions(400, D_MODEL, seed=123)
    best = [latent_agreement(sae, direction(v), n_random=39).table["cosine"].abs().max() for v in fresh]
    assert 0.005 < np.mean(np.array(best) > null) < 0.06
    few = latent_agreement(sae, direction(np.ones(D_MODEL)), latents=[5]).table
    assert few["null"][0] < 0.7 * null, "one latent named beforehand needs less"
    again = latent_agreement(sae, direction(np.ones(D_MODEL)), seed=1).table["null"][0]
    assert again != null
    assert again == pytest.approx(null, abs=0.05)


def test_several_directions_by_name_and_chosen_latents(sae, rows):
    named = {"first": direction(rows[1].numpy()), "second": direction(rows[2].numpy())}
    table = latent_agreement(sae, named, latents=[2, 9, 1]).table
    assert table["direction"].tolist() == ["first"] * 3 + ["second"] * 3
    assert table.loc[table["rank"] == 1, "latent"].tolist() == [1, 2]
    assert set(table["latent"]) == {1, 2, 9}


def test_a_decoder_row_of_zero_agrees_with_nothing(rows):
    dead = rows.clone()
    dead[4] = 0.0
    table = latent_agreement(sae_of(dead, LAYER), direction(rows[0].numpy())).table
    assert table.iloc[-1]["latent"] == 4
    assert np.isnan(table.iloc[-1]["cosine"])
    assert table["null"].notna().all()


def test_a_decoder_is_read_in_blocks(rows, sae, monkeypatch):
    target = direction(rows[7].numpy())
    whole = latent_agreement(sae, target, n_random=40).table
    monkeypatch.setattr(agreement, "_NUMBERS_AT_ONCE", 40 * 11)
    pd.testing.assert_frame_equal(latent_agreement(sae, target, n_random=40).table, whole, rtol=0, atol=1e-6)


def test_no_copy_of_the_decoder_is_made():
    width, d_model = 8_000, 512
    wide = sae_of(torch.randn(width, d_model, generator=torch.Generator().manual_seed(0)), LAYER)
    along = pp.Direction(np.ones((1, d_model), dtype=np.float32), (LAYER,))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(agreement, "_NUMBERS_AT_ONCE", 2**18)
        tracemalloc.start()
        latent_agreement(wide, along, n_random=39)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < width * d_model * 4 / 2


def test_refuses_random_directions_that_are_too_few_for_the_quantile(sae):
    with pytest.raises(pp.PersonaProbeError, match="n_random=38; give at least 39"):
        latent_agreement(sae, direction(np.ones(D_MODEL)), n_random=38)


def test_refuses_another_width_layer_and_latent(sae):
    with pytest.raises(pp.PersonaProbeError, match="d_model=5, the SAE handmade reads vectors of width 24"):
        latent_agreement(sae, pp.Direction(np.ones((1, 5), dtype=np.float32), (LAYER,)))
    elsewhere = pp.Direction(np.ones((1, D_MODEL), dtype=np.float32), (0,), {"name": "evil"})
    with pytest.raises(pp.PersonaProbeError, match=r"'evil' has no layer 2, .* it has 0"):
        latent_agreement(sae, elsewhere)
    with pytest.raises(pp.PersonaProbeError, match="latent 300 does not exist"):
        latent_agreement(sae, direction(np.ones(D_MODEL)), latents=[300])
    with pytest.raises(pp.PersonaProbeError, match="no directions"):
        latent_agreement(sae, {})


def test_warns_of_an_unrelated_model_only_where_both_are_known(rows):
    sae = sae_of(rows, LAYER, models={"chat": "aaaa"})
    latent_agreement(sae, direction(np.ones(D_MODEL)))
    latent_agreement(sae, direction(np.ones(D_MODEL), model="bad", model_hash="bbbb", ancestors=["aaaa"]))
    latent_agreement(sae_of(rows, LAYER), direction(np.ones(D_MODEL), model_hash="bbbb"))
    with pytest.warns(LatentWarning, match=r"found in other \(weights bbbb\).*trained on: chat \(aaaa\)"):
        latent_agreement(sae, direction(np.ones(D_MODEL), model="other", model_hash="bbbb"))
