import numpy as np
import pytest
import torch
from torch.nn import functional

import persona_probe as pp
from persona_probe.steering.strength.divergence import measure_divergence, own_answers
from tests.activations.test_capture import TALKS

LAYER = 1


@pytest.fixture
def direction(any_model):
    vectors = np.random.default_rng(0).normal(size=(any_model.n_layers, any_model.d_model))
    return pp.Direction.from_vectors(any_model, vectors)


def by_hand(model, dialogue, steered=None):
    """Log-probabilities (position, vocabulary) at the positions that decide the answer's tokens, one text a forward."""
    encoded = model.template.encode(dialogue)
    seen = encoded.span("generation")
    hidden = {}

    def write(layer, _offset, stream):
        moved = stream.clone()
        moved[:, seen] += hidden[layer]
        return moved

    hidden[LAYER] = 0.0 if steered is None else torch.from_numpy(steered).float()
    with torch.inference_mode(), model.stream.writing(write, [LAYER]):
        logits = model.hf(torch.tensor([encoded.input_ids]), use_cache=False).logits[0, seen]
    said = torch.tensor(encoded.input_ids[encoded.prompt_length : encoded.response_end])
    return functional.log_softmax(logits.double(), dim=-1), said


@pytest.mark.parametrize("tokens_per_batch", [None, 60])
def test_kl_and_log_probs_are_those_of_single_forwards_by_hand(any_model, direction, tokens_per_batch):
    strengths = (0.0, 0.5, -3.0)
    steered = [pp.Add(direction, layers=LAYER, strength=strength) for strength in strengths]
    found = measure_divergence(any_model, steered, TALKS, tokens_per_batch=tokens_per_batch)
    kl, said_steered, said_plain = [], [], []
    for dialogue in TALKS:
        plain, said = by_hand(any_model, dialogue)
        others = [by_hand(any_model, dialogue, strength * direction.at(LAYER))[0] for strength in strengths]
        kl.append(torch.stack([(plain.exp() * (plain - other)).sum(-1) for other in others]))
        said_plain.append(plain.gather(1, said[:, None])[:, 0])
        said_steered.append(torch.stack([other.gather(1, said[:, None])[:, 0] for other in others]))
    np.testing.assert_allclose(found.kl, torch.cat(kl, dim=1).numpy(), atol=2e-5)
    np.testing.assert_allclose(found.log_probs, torch.cat(said_steered, dim=1).numpy(), atol=1e-4)
    np.testing.assert_allclose(found.unsteered, torch.cat(said_plain).numpy(), atol=1e-4)
    assert found.kl[2].mean() > 100 * max(found.kl[0].mean(), 1e-7)


def test_estimates_are_over_questions_and_pool_draws_as_seeds(llama):
    vectors = np.random.default_rng(0).normal(size=(llama.n_layers, llama.d_model))
    add = pp.Add(pp.Direction.from_vectors(llama, vectors), layers=LAYER)
    found = measure_divergence(llama, [add, add.with_strength(2.0)], TALKS)
    assert found.estimate(0).value == pytest.approx(found.kl[0].mean())
    assert found.estimate([0, 1]).value == pytest.approx(found.kl.mean())
    assert f"{len(set(found.questions))} questions and 2 seeds" in found.estimate([0, 1]).method
    p95 = found.estimate(1, "p95")
    assert p95.value == pytest.approx(np.quantile(found.kl[1], 0.95))
    assert p95.low <= p95.value <= p95.high
    assert found.perplexity(1).value == pytest.approx(np.exp(-found.log_probs[1].mean()))
    assert found.perplexity().value == pytest.approx(np.exp(-found.unsteered.mean()))
    with pytest.raises(pp.PersonaProbeError, match="unknown statistic 'median'"):
        found.estimate(0, "median")


def test_a_model_that_is_steered_already_is_refused(llama):
    vectors = np.random.default_rng(0).normal(size=(llama.n_layers, llama.d_model))
    add = pp.Add(pp.Direction.from_vectors(llama, vectors), layers=LAYER)
    with pytest.raises(pp.PersonaProbeError, match="is being steered"), pp.steer(llama, add):
        measure_divergence(llama, [add], TALKS)


def test_only_dialogues_without_an_answer_are_answered(llama):
    asked = [TALKS[0], TALKS[1].without_answer()]
    answered = own_answers(llama, asked, pp.Sampling(max_new_tokens=5, seed=3))
    assert answered[0] == TALKS[0]
    assert answered[1].answer == llama.generate(asked[1:], pp.Sampling(max_new_tokens=5, seed=3))[0].answer
    with pytest.raises(pp.PersonaProbeError, match="the list is empty"):
        own_answers(llama, [])
