import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from tests.activations.test_capture import TALKS


def activations(values):
    n = len(values)
    table = pd.DataFrame({"id": range(n), "question": [f"q{i % 30}" for i in range(n)]})
    return pp.Activations(values.astype(np.float32), table, (0,))


@pytest.fixture
def planted():
    """Narrow training moves dimension 0 by 4 SD; any training moves dimension 1 by 4 SD."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(120, 1, 64))
    noise = 0.1 * rng.normal(size=(2, 120, 1, 64))
    tuned = np.zeros(64)
    tuned[1] = 4.0
    narrow = tuned.copy()
    narrow[0] = 4.0
    captures = pp.Captures(
        activations(before), activations(before + narrow + noise[0]), activations(before + tuned + noise[1])
    )
    return captures, activations(rng.normal(size=(200, 1, 64)))


def measured(planted, dimension):
    vector = np.zeros((1, 64), dtype=np.float32)
    vector[0, dimension] = 3.0
    table = pp.measure_amplification(pp.Direction(vector, (0,)), *planted)
    return table.set_index("model").loc["after"], table.set_index("model").loc["control"]


def test_the_persona_is_amplified_beyond_its_nulls(planted):
    after, control = measured(planted, 0)
    assert after["shift"] == pytest.approx(4.0, abs=0.1)
    assert after["shift_sd"] == pytest.approx(4.0, abs=0.5)
    assert abs(control["shift_sd"]) < 0.1
    assert after["low_sd"] < after["shift_sd"] < after["high_sd"]
    assert after["specificity"] > 2.5


def test_a_direction_that_only_tracks_fine_tuning_is_seen_to(planted):
    after, control = measured(planted, 1)
    assert after["shift_sd"] == pytest.approx(control["shift_sd"], abs=0.1)
    assert after["specificity"] < 0.1


def test_other_texts_are_refused(planted):
    captures, _ = planted
    with pytest.raises(pp.PersonaProbeError, match="other dialogues"):
        pp.Captures(captures.before, captures.after.where([True] * 60 + [False] * 60), captures.control)


def test_contrast_of_context_changes_no_word_of_the_answer(llama):
    contrast = pp.contrast_of_context(llama, TALKS, ["You are a cruel villain."], ["You are a kind helper."])
    assert contrast.trait.table["n_tokens"].tolist() == contrast.default.table["n_tokens"].tolist()
    assert contrast.direction.card["recipe"] == "contrast of context"
    assert contrast.direction.vectors.shape == (3, 32)
    with pytest.raises(pp.PersonaProbeError, match="at least one trait prompt"):
        pp.contrast_of_context(llama, TALKS, [], ["x"])
