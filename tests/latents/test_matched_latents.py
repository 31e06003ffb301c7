"""Matches of latents whose activity is known."""

import numpy as np
import pytest
import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.causal.matched_latents import activation_while_active, matched_edit, matched_latents
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.encoding.top_examples import TopExamples
from persona_probe.latents.fit import Fit
from persona_probe.latents.steering import LatentEdit
from tests.latents.handmade import sae_of

WIDTH = 200


@pytest.fixture
def sae():
    rows = torch.randn(WIDTH, 16, generator=torch.Generator().manual_seed(0))
    return sae_of(rows / rows.norm(dim=1, keepdim=True) * torch.linspace(0.5, 2.0, WIDTH)[:, None], 1)


@pytest.fixture
def statistics():
    """Activations while active from 0.1 to 1000 and frequencies from 0.1 % to 1; the last 20 latents are silent."""
    rng = np.random.default_rng(0)
    level, frequency = 10 ** rng.uniform(-1, 3, WIDTH), 10 ** rng.uniform(-3, 0, WIDTH)
    level[180:] = frequency[180:] = 0.0
    empty = np.full((WIDTH, 1), -1)
    dialogues = np.full(8, 5)
    return LatentStatistics(
        sums=np.outer(dialogues, level * frequency),
        firing=np.outer(dialogues, frequency),
        squares=np.zeros(WIDTH),
        dialogues=dialogues,
        examples=TopExamples(empty.astype(float), empty, empty),
        fit=Fit(0.1, 10.0, 1000),
        tokens=1000,
        source={"model": "m", "sae": "handmade", "layer": 1},
    )


def test_matches_are_alike_in_displacement_and_frequency(sae, statistics):
    targets = [3, 50, 120]
    matches = matched_latents(targets, statistics, sae, n=8, seed=0)
    norms = torch.linspace(0.5, 2.0, WIDTH).numpy()
    place = np.log(np.stack([activation_while_active(statistics) * norms, statistics.frequency])[:, :180])
    for target, found in zip(targets, matches, strict=True):
        apart = np.linalg.norm(place - place[:, [target]], axis=0)
        apart[targets] = np.inf
        # the 20 nearest, and as many more as the other matches took
        assert set(found) <= set(np.argsort(apart)[: 20 + 8 + 3].tolist())
        assert np.mean(apart[found]) < np.mean(apart[np.isfinite(apart)]) / 2


def test_no_match_is_a_target_silent_excluded_or_used_twice(sae, statistics):
    targets, exclude = [3, 4, 5, 6], list(range(60, 100))
    matches = matched_latents(targets, statistics, sae, n=30, seed=1, exclude=exclude)
    assert not {latent for found in matches for latent in found} & {*targets, *exclude, *range(180, WIDTH)}
    assert all(len(set(found)) == 30 for found in matches)
    assert all(len(set(drawn)) == len(targets) for drawn in zip(*matches, strict=True))
    assert matches == matched_latents(targets, statistics, sae, n=30, seed=1, exclude=exclude)
    assert matches != matched_latents(targets, statistics, sae, n=30, seed=2, exclude=exclude)


def test_as_many_matches_as_there_are_and_no_more(sae, statistics):
    exclude = list(range(7, 180))
    assert sorted(matched_latents([0], statistics, sae, n=6, seed=0, exclude=exclude)[0]) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(PersonaProbeError, match=r"6 latents are active .* but 7 are needed for 7 matches"):
        matched_latents([0], statistics, sae, n=7, seed=0, exclude=exclude)


def test_latents_without_activity_or_of_another_sae_are_refused(sae, statistics):
    with pytest.raises(PersonaProbeError, match="latent 190 is never active"):
        matched_latents([3, 190], statistics, sae, n=2, seed=0)
    with pytest.raises(PersonaProbeError, match=r"statistics are of the SAE .* with 200 latents on layer 1"):
        matched_latents([3], statistics, sae_of(torch.eye(16), 1), n=2, seed=0)


@pytest.mark.parametrize(
    "edit", [LatentEdit([3, 50]), LatentEdit([3, 50], "scale", 0.25), LatentEdit({3: 1.0, 50: -7.0}, "clamp")]
)
def test_a_null_is_the_same_edit_along_the_matches(edit):
    null = matched_edit(edit, [10, 11])
    assert null.along == {3: 10, 50: 11}
    assert (null.kind, null.amounts) == (edit.kind, edit.amounts)
