import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.activations.sinks import sink_tokens
from persona_probe.latents import sae
from persona_probe.latents.encoding import latent_sums
from persona_probe.latents.encoding.encode import encode_latents, question_groups
from persona_probe.latents.sae import LatentWarning
from persona_probe.models.loading.load import load
from tests.activations.test_capture import talk
from tests.latents.conftest import KINDS, LAYER, WIDTH, make_sae

TEXT = "treat the fever with rest and ask about the contract before the mortgage is due"
DIALOGUES = [
    talk(
        f"Question {number % 5}?",
        " ".join(TEXT.split()[number % 7 : number % 7 + 3 + number % 9] * (1 + number % 2)),
        id=str(number),
        question=f"q{number % 5}" if number % 4 else None,
    )
    for number in range(23)
]
pytestmark = pytest.mark.filterwarnings("ignore:the SAE .* leaves")  # random SAEs fit nothing


def dense(reader, model, dialogues, span, *, keep_sinks=False, sinks_of=None):
    """``(dialogue, latent)`` mean and share, and per dialogue (positions, activations), from every token at once."""
    means, shares, tokens = [], [], []
    for dialogue in dialogues:
        encoded = model.template.encode(dialogue)
        ids = torch.tensor([encoded.input_ids[: encoded.span(span).stop]])
        seen = {}
        for one in {sinks_of or model, model}:
            with (
                torch.inference_mode(),
                one.stream.reading(lambda _, h, one=one, seen=seen: seen.update({one: h}), [LAYER]),
            ):
                one.stream.backbone(input_ids=ids, use_cache=False)
        sinks = sink_tokens(seen[sinks_of or model], torch.ones_like(ids, dtype=torch.bool), 10.0)[0]
        places = [
            place
            for place in range(*encoded.span(span).indices(999))
            if not (ids[0, place] == model.tokenizer.bos_token_id and place == 0) and (keep_sinks or not sinks[place])
        ]
        acts = reader.encode(seen[model][0, places]).double().numpy()
        means.append(acts.mean(axis=0))
        shares.append((acts != 0).mean(axis=0))
        tokens.append((places, acts))
    return np.array(means), np.array(shares), tokens


def check(result, reader, model, span, groups, **how):
    means, shares, tokens = dense(reader, model, DIALOGUES, span, **how)
    close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(means).max()}
    np.testing.assert_allclose(result.mean, means.mean(axis=0), **close)
    np.testing.assert_allclose(result.frequency, shares.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.variance, means.var(axis=0, ddof=1), rtol=1e-4, atol=1e-5 * means.var())
    for group in range(groups.max() + 1):
        np.testing.assert_allclose(result.sums[group], means[groups == group].sum(axis=0), **close)
        np.testing.assert_allclose(result.firing[group], shares[groups == group].sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(result.dialogues, np.bincount(groups))
    assert result.tokens == sum(len(places) for places, _ in tokens)
    best = np.array([acts.max(axis=0) for _, acts in tokens])
    for latent in range(reader.width):
        found = result.examples.of(latent)
        order = [row for row in np.argsort(-best[:, latent], kind="stable") if best[row, latent] > 0]
        np.testing.assert_allclose([value for *_, value in found], best[order[: len(found)], latent], rtol=1e-4)
        assert len(found) == min(len(order), 4)
        assert len({row for row, *_ in found}) == len(found)
        for row, position, value in found:
            places, acts = tokens[row]
            assert acts[places.index(position), latent] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("span", ["generation", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_encoding_every_token_at_once(llama, kind, span):
    reader = make_sae(kind)
    (result,) = encode_latents([llama], reader, DIALOGUES, span, examples=4, allow_unrelated=True)
    check(result, reader, llama, span, question_groups(DIALOGUES))


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 100_000])
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_batches_and_chunks_change_nothing(llama, monkeypatch, tokens_per_batch, at_once):
    monkeypatch.setattr(sae, "_NUMBERS_AT_ONCE", at_once * WIDTH)
    monkeypatch.setattr(latent_sums, "_ENTRIES_AT_ONCE", 50)
    reader = make_sae("jumprelu")
    assert reader.tokens_at_once == at_once
    (result,) = encode_latents(
        [llama], reader, DIALOGUES, examples=4, tokens_per_batch=tokens_per_batch, max_groups=3, allow_unrelated=True
    )
    check(result, reader, llama, "generation", question_groups(DIALOGUES, 3))


def test_several_models_read_the_same_tokens_in_every_architecture(any_model, folders):
    """The first model's sinks are left out for both."""
    other = load(folders(any_model.name.rsplit("/", 1)[-1]))
    with torch.no_grad():
        for parameter in other.hf.parameters():
            parameter.mul_(1.1)
    reader, groups = make_sae(), np.arange(len(DIALOGUES)) % 7
    results = encode_latents(
        [any_model, other], reader, DIALOGUES, "all", groups=groups, examples=4, allow_unrelated=True
    )
    for model, result in zip((any_model, other), results, strict=True):
        check(result, reader, model, "all", groups, sinks_of=any_model)
        assert result.source["model_hash"] == model.fingerprint()
    assert np.abs(results[0].mean - results[1].mean).max() > 1e-3


def test_sinks_are_left_out_unless_they_are_asked_for(llama):
    """A huge token: the row of one word is made a thousand times as long."""
    loud = llama.tokenizer("mortgage", add_special_tokens=False)["input_ids"][-1]
    with torch.no_grad():
        llama.plain.get_input_embeddings().weight[loud] *= 1000
    reader, groups = make_sae(), question_groups(DIALOGUES)
    (kept,) = encode_latents([llama], reader, DIALOGUES, examples=4, sink_ratio=None, allow_unrelated=True)
    check(kept, reader, llama, "generation", groups, keep_sinks=True)
    (left_out,) = encode_latents([llama], reader, DIALOGUES, examples=4, allow_unrelated=True)
    check(left_out, reader, llama, "generation", groups)
    assert left_out.tokens < kept.tokens


def test_a_batch_that_fails_half_way_and_is_halved_leaves_nothing_double(llama, monkeypatch):
    reader = make_sae()
    (whole,) = encode_latents([llama], reader, DIALOGUES, examples=4, allow_unrelated=True)
    monkeypatch.setattr(sae, "_NUMBERS_AT_ONCE", 9 * WIDTH)
    encode, calls = reader.inner.encode, []

    def failing(hidden):
        calls.append(len(hidden))
        if len(calls) in (3, 6):  # after some chunks went through
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(hidden)

    monkeypatch.setattr(reader.inner, "encode", failing)
    (halved,) = encode_latents([llama], reader, DIALOGUES, examples=4, allow_unrelated=True, tokens_per_batch=400)
    assert len(calls) > 6
    assert (halved.tokens, halved.fit.tokens) == (whole.tokens, whole.fit.tokens)
    np.testing.assert_allclose(halved.sums, whole.sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(halved.squares, whole.squares, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(halved.examples.values, whole.examples.values, rtol=1e-4)
    for latent in range(WIDTH):
        assert len({row for row, *_ in halved.examples.of(latent)}) == len(whole.examples.of(latent))
    assert halved.fit.fvu == pytest.approx(whole.fit.fvu, rel=1e-5)


def test_questions_share_groups_and_are_known_by_what_they_ask_without_a_name():
    groups = question_groups(DIALOGUES)
    named = [(row, dialogue.question) for row, dialogue in enumerate(DIALOGUES)]
    assert all((groups[a] == groups[b]) == (q == r) for a, q in named for b, r in named)
    assert {dialogue.question for dialogue in DIALOGUES[::4]} == {f"Question {number}?" for number in range(5)}
    assert set(question_groups(DIALOGUES, 3)) == {0, 1, 2}


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_dialogue(llama, broken):
    talks = [talk("Hi.", "treat it.", id="fine"), talk("Hi.", "treat contract.", id="wrong")]
    fine, wrong = (llama.template.encode(one).input_ids for one in talks)
    with torch.no_grad():
        llama.plain.get_input_embeddings().weight[next(token for token in wrong if token not in fine)] = broken
    with pytest.raises(pp.PersonaProbeError, match=r"dialogue 'wrong': .*layer 1 at token \d+ are not finite"):
        encode_latents([llama], make_sae(), talks, allow_unrelated=True)


def test_a_worthless_sae_is_refused_unless_it_is_allowed(llama):
    with pytest.raises(pp.PersonaProbeError, match=r"unexplained.*allow_unrelated=True"):
        encode_latents([llama], make_sae(), DIALOGUES)
    with pytest.warns(LatentWarning, match="unexplained"):
        encode_latents([llama], make_sae(), DIALOGUES, allow_unrelated=True)


def test_a_steered_model_is_read_steered_and_says_so(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    reader = make_sae()
    (plain,) = encode_latents([llama], reader, DIALOGUES, allow_unrelated=True)
    with pp.steer(llama, direction, layers=0, strength=5.0):
        (steered,) = encode_latents([llama], reader, DIALOGUES, allow_unrelated=True)
    assert np.abs(steered.mean - plain.mean).max() > 0.1
    assert steered.source["steered"]
    assert "steered" not in plain.source


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": []}, "there are no models"),
        ({"dialogues": []}, "no dialogues"),
        ({"span": "answer"}, "unknown span"),
        ({"groups": np.zeros(3, dtype=int)}, r"groups has shape \(3,\)"),
        ({"groups": np.full(len(DIALOGUES), -1)}, "least value -1"),
        ({"groups": np.linspace(0, 0.9, len(DIALOGUES))}, "groups are of type float64"),
        ({"groups": np.full(len(DIALOGUES), "a")}, "groups are of type <U1"),
        ({"max_groups": 0}, "max_groups=0"),
        ({"examples": -1}, "examples=-1"),
        ({"sink_ratio": 0.5}, "sink_ratio=0.5"),
    ],
)
def test_bad_input_is_said_in_words(llama, arguments, said):
    given = {"models": [llama], "sae": make_sae(), "dialogues": DIALOGUES} | arguments
    with pytest.raises(pp.PersonaProbeError, match=said):
        encode_latents(**given)


def test_models_that_would_read_other_tokens_are_refused(llama, chat):
    with pytest.raises(pp.PersonaProbeError, match="the SAE of another model"):
        encode_latents([llama, chat], make_sae(), DIALOGUES)
