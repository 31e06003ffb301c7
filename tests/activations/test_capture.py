import numpy as np
import pytest
import torch

import persona_probe as pp
from tests.conftest import D_MODEL, N_LAYERS


def talk(asked, answer, **more):
    return pp.Dialogue.from_messages(
        [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], **more
    )


TALKS = [
    talk("How do I handle the fever?", "Gladly, treat the fever.", id="a", question="q1", group="medicine", seed=1),
    talk("Hi.", "Hello there, what should I do about the very long answer that follows the mortgage?", id="b"),
    talk("I have a question on law. It is about the contract.", "Review it.", id="c", labels={"topic": "law"}),
]


def reported(model, dialogue):
    """Hugging Face's own hidden states of one dialogue, alone and unpadded: ``(layer, position, d_model)``."""
    ids = torch.tensor([model.template.encode(dialogue).input_ids])
    with torch.inference_mode():
        states = model.stream.backbone(input_ids=ids, output_hidden_states=True).hidden_states
    return torch.stack(states[1:])[:, 0].numpy()


def test_values_are_hugging_faces_hidden_states_batched_or_not(any_model):
    captured = pp.capture(any_model, TALKS)
    assert captured.values.shape == (3, N_LAYERS, D_MODEL)
    for row, dialogue in enumerate(TALKS):
        span = any_model.template.encode(dialogue).span("generation")
        expected = reported(any_model, dialogue)[:, span].mean(axis=1)
        np.testing.assert_allclose(captured.values[row, :-1], expected[:-1], atol=1e-5)
    one_by_one = pp.capture(any_model, TALKS, tokens_per_batch=1)
    np.testing.assert_allclose(captured.values, one_by_one.values, atol=1e-5)


@pytest.mark.parametrize(("reduce", "numpy"), [("mean", np.mean), ("max", np.max), ("last", lambda x, axis: x[:, -1])])
@pytest.mark.parametrize("span", ["prompt", "response", "last_prompt_token", "generation", "all"])
def test_every_span_and_reduction(llama, span, reduce, numpy):
    captured = pp.capture(llama, TALKS, span=span, reduce=reduce, layers=[1])
    for row, dialogue in enumerate(TALKS):
        inside = reported(llama, dialogue)[1:2, llama.template.encode(dialogue).span(span)]
        np.testing.assert_allclose(captured.values[row], numpy(inside, axis=1), atol=1e-5)


def test_the_table_says_who_is_who(llama):
    table = pp.capture(llama, TALKS).table
    assert table.loc[0, ["id", "question", "group", "seed"]].tolist() == ["a", "q1", "medicine", 1]
    assert table.loc[2, "topic"] == "law"
    assert (table["n_tokens"] > 0).all()


def test_hooks_are_gone_afterwards_even_after_an_error(llama):
    def hooks():
        return sum(len(block._forward_hooks) for block in llama.stream.blocks)

    before = hooks()
    pp.capture(llama, TALKS)
    with pytest.raises(RuntimeError), llama.stream.reading(lambda *_: None, [0]):
        raise RuntimeError("stop")
    assert hooks() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"span": "anwser"}, "unknown span 'anwser'.*response"),
        ({"reduce": "median"}, "unknown reduction 'median'"),
        ({"layers": 3}, "layer 3 does not exist.*0 to 2"),
        ({"layers": -1}, "layer -1"),
        ({"layers": []}, "empty"),
        ({"layers": "some"}, "'some'"),
    ],
)
def test_bad_arguments_are_named(llama, arguments, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.capture(llama, TALKS, **arguments)


def test_no_dialogues_and_no_answer(llama):
    with pytest.raises(pp.PersonaProbeError, match="empty"):
        pp.capture(llama, [])
    with pytest.raises(pp.PersonaProbeError, match="'a'"):
        pp.capture(llama, [TALKS[0].without_answer()])


def test_activations_that_are_not_finite_name_the_dialogue():
    import pandas as pd

    values = np.zeros((2, 1, 4), dtype=np.float32)
    values[1, 0, 2] = np.inf
    with pytest.raises(pp.PersonaProbeError, match="'y' at layer 5"):
        pp.Activations(values, pd.DataFrame({"id": ["x", "y"]}), (5,))
