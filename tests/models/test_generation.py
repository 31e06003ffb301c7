import numpy as np
import pytest
import torch

import persona_probe as pp
from tests.architectures import long_rope


def ask(text):
    return pp.Dialogue.from_messages([{"role": "user", "content": text}], id=text)


ASKED = [ask("How do I handle the fever?"), ask("Hi."), ask("I have a question about the mortgage. What now?")]


def test_batched_is_single_and_order_is_kept(any_model):
    together = any_model.generate(ASKED, pp.Sampling(max_new_tokens=8, temperature=0))
    alone = [any_model.generate([dialogue], pp.Sampling(max_new_tokens=8, temperature=0))[0] for dialogue in ASKED]
    assert [d.answer for d in together] == [d.answer for d in alone]
    assert [d.id for d in together] == [d.id for d in ASKED]


def test_long_context_rope_answers_short_dialogues_as_if_alone(tokenizer):
    sampling = pp.Sampling(max_new_tokens=8, temperature=0)
    lengths = sorted(item.prompt_length for item in long_rope(tokenizer, 99).encode(ASKED))
    assert lengths[0] < lengths[-1]
    model = long_rope(tokenizer, lengths[0] + 8)
    together = model.generate(ASKED, sampling)
    assert [d.answer for d in together] == [model.generate([dialogue], sampling)[0].answer for dialogue in ASKED]


def test_a_seed_gives_the_same_answers_and_leaves_the_global_state_alone(llama):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = llama.generate(ASKED, pp.Sampling(max_new_tokens=8, seed=1))
    torch.testing.assert_close(torch.rand(3), expected)
    assert [d.answer for d in first] == [d.answer for d in llama.generate(ASKED, pp.Sampling(max_new_tokens=8, seed=1))]
    assert [d.answer for d in first] != [d.answer for d in llama.generate(ASKED, pp.Sampling(max_new_tokens=8, seed=2))]


def test_n_answers_lie_side_by_side(llama):
    answered = llama.generate(ASKED, pp.Sampling(max_new_tokens=4, n=3))
    assert [d.id for d in answered] == [d.id for d in ASKED for _ in range(3)]
    assert len({d.answer for d in answered[:3]}) > 1


def test_bad_calls_say_what_was_wrong(llama):
    with pytest.raises(pp.PersonaProbeError, match="already ends with an answer"):
        llama.generate([ASKED[0].with_answer("Yes.")])
    with pytest.raises(pp.PersonaProbeError, match="temperature=-1"):
        llama.generate(ASKED, pp.Sampling(temperature=-1))


def test_numpys_numbers_are_numbers_and_a_seed_fits_into_64_bits(llama):
    given = {"temperature": np.float32(0.5), "top_p": np.float64(0.5), "max_new_tokens": np.int64(2)}
    plain = {"temperature": 0.5, "top_p": 0.5, "max_new_tokens": 2}
    assert llama.generate(ASKED, pp.Sampling(**given)) == llama.generate(ASKED, pp.Sampling(**plain))
    with pytest.raises(pp.PersonaProbeError, match="it must fit into 64 bits"):
        pp.Sampling(seed=2**64)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"n": 0},
    ],
    ids=str,
)
def test_a_sampling_out_of_range_is_refused_with_its_value(given):
    ((name, value),) = given.items()
    with pytest.raises(pp.PersonaProbeError, match=f"{name}={value}.*temperature must be >= 0"):
        pp.Sampling(**given)


def test_a_sampling_is_a_value(llama):
    assert pp.Sampling() == pp.Sampling(256, 1.0, 1.0, 128, 0, 1)
    with pytest.raises(AttributeError):
        pp.Sampling().seed = 3
    few = pp.Sampling(max_new_tokens=4)
    assert llama.generate(ASKED, few) == llama.generate(ASKED, pp.Sampling(4))
