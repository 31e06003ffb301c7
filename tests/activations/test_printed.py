"""What is printed of activations is one line, however large they are."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp


@pytest.mark.parametrize(
    ("layers", "source", "line"),
    [
        ((3,), {}, "Activations(200 dialogues, layer 3, d_model=64)"),
        (
            (0, 1, 2),
            {"model": "m", "span": "response", "reduce": "mean"},
            "layers 0 to 2, d_model=64, m, response, mean)",
        ),
        ((0, 5), {"reduce": "tokens"}, "Activations(200 tokens, 2 layers, d_model=64, tokens)"),
    ],
)
def test_activations_are_one_line(layers, source, line):
    values = np.ones((200, len(layers), 64), dtype=np.float32)
    activations = pp.Activations(values, pd.DataFrame({"id": map(str, range(200))}), layers, source)
    assert str(activations).endswith(line)
    assert "\n" not in repr(activations)
    captures = pp.Captures(activations, activations)
    assert "\n" not in repr(captures)
    assert len(repr(captures)) < 500
