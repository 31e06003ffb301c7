from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp

TALKS = [
    pp.Dialogue.from_messages(
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Treat the fever." * (1 + i % 2)}],
        id=f"d{i}",
        question=None if i < 2 else "q",
        seed=None if i < 3 else i,
        labels={"topic": "law", "marked": True} if i > 2 else {},
    )
    for i in range(6)
]


@pytest.mark.parametrize("reduce", ["mean", "last", "tokens"])
def test_parts_together_are_the_capture_of_the_whole(llama, reduce):
    parts = [pp.capture(llama, TALKS[start:stop], reduce=reduce) for start, stop in ((0, 1), (1, 4), (4, 6))]
    joined, whole = pp.Activations.concatenate(parts), pp.capture(llama, TALKS, reduce=reduce)
    np.testing.assert_allclose(joined.values, whole.values, atol=1e-6)
    pd.testing.assert_frame_equal(joined.table, whole.table, check_like=True)
    assert (joined.source, joined.layers) == (whole.source, whole.layers)


def test_sinks_are_summed(llama):
    part = pp.capture(llama, TALKS)
    counted = replace(part, source={**part.source, "sinks_left_out": [1, 0, 2]})
    assert pp.Activations.concatenate([counted, counted, counted]).source["sinks_left_out"] == [3, 0, 6]


def test_parts_of_different_captures_are_refused(llama):
    mean = pp.capture(llama, TALKS)
    others = {
        "layers": pp.capture(llama, TALKS, layers=[0, 1]),
        "d_model": replace(mean, values=mean.values[:, :, 1:]),
        "model_hash": replace(mean, source={**mean.source, "model_hash": "another"}),
        "template_hash": replace(mean, source={**mean.source, "template_hash": "another"}),
        "span": pp.capture(llama, TALKS, span="all"),
        "reduce": pp.capture(llama, TALKS, reduce="max"),
        "sink_ratio": pp.capture(llama, TALKS, sink_ratio=None),
    }
    for name, other in others.items():
        with pytest.raises(pp.PersonaProbeError, match=f"cannot be concatenated: {name} is .* in part 2"):
            pp.Activations.concatenate([mean, mean, other])
    with pytest.raises(pp.PersonaProbeError, match="the list is empty"):
        pp.Activations.concatenate([])
