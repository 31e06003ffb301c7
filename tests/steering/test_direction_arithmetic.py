import numpy as np
import pytest

import persona_probe as pp
from tests.activations.test_capture import TALKS


def directions(model):
    rng = np.random.default_rng(0)
    return [pp.Direction.from_vectors(model, rng.normal(size=(3, 32))) for _ in range(2)]


def test_an_expression_of_directions_steers(llama):
    evil, warm = directions(llama)
    plain = pp.capture(llama, TALKS, layers=1).values
    with pp.steer(llama, 2.0 * evil - warm, layers=1):
        steered = pp.capture(llama, TALKS, layers=1).values
    np.testing.assert_allclose((steered - plain)[:, 0], [2 * evil.at(1) - warm.at(1)] * len(TALKS), atol=1e-4)
    with pp.steer(llama, evil, layers=[0, 1], kind="clamp", target={0: 1.0, 1: -2.0}):
        steered = pp.capture(llama, TALKS, layers=[0, 1])
    np.testing.assert_allclose(evil.project(steered), [[1.0, -2.0]] * len(TALKS), atol=1e-4)


def test_increments_added_at_all_layers_move_each_by_its_own_vector_where_blocks_pass_it_on(llama):
    # Blocks that only pass the stream on: what is left is what was added.
    for block in llama.stream.blocks:
        for name, parameter in block.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.data.zero_()
    evil = directions(llama)[0]
    increments = evil.increments()
    np.testing.assert_allclose(np.cumsum(increments.vectors, axis=0), evil.vectors, atol=1e-5)
    plain = pp.capture(llama, TALKS).values
    with pp.steer(llama, increments, layers="all"):
        moved = pp.capture(llama, TALKS).values - plain
    np.testing.assert_allclose(moved, np.broadcast_to(evil.vectors, moved.shape), atol=1e-4)
    with pytest.raises(pp.PersonaProbeError, match="need neighbouring layers"):
        evil.select([0, 2]).increments()
