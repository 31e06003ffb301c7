"""What capture keeps: tokens, moments, means without sinks; how it batches, and what it does not run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.activations.batching import batches, halving
from persona_probe.activations.sinks import SINK_RATIO, sink_tokens
from tests.activations.test_capture import TALKS, reported, talk
from tests.architectures import long_rope
from tests.conftest import D_MODEL, N_LAYERS

MANY = [talk(f"What about the {word}?", f"Treat the {word} and " * (1 + i % 5) + "rest.", id=f"d{i}")
        for i, word in enumerate(["fever", "mortgage", "contract", "cough", "garden"] * 6)]  # fmt: skip


def test_every_token_is_a_labelled_row(any_model):
    tokens = pp.capture(any_model, TALKS, span="response", reduce="tokens")
    for row, dialogue in enumerate(TALKS):
        encoded = any_model.template.encode(dialogue)
        span = encoded.span("response")
        mine = tokens.where(tokens.table["dialogue"] == row)
        assert mine.table["position"].tolist() == list(range(span.start, span.stop))
        assert mine.table["token_id"].tolist() == list(encoded.input_ids[span])
        assert mine.table["token"].tolist() == any_model.tokenizer.convert_ids_to_tokens(list(encoded.input_ids[span]))
        assert set(mine.table["id"]) == {dialogue.id}
        expected = reported(any_model, dialogue)[:, span].transpose(1, 0, 2)
        np.testing.assert_allclose(mine.values[:, :-1], expected[:, :-1], atol=1e-5)
    means = tokens.values.reshape(len(tokens), -1)
    grouped = np.stack([means[tokens.table["dialogue"] == row].mean(axis=0) for row in range(len(TALKS))])
    whole = pp.capture(any_model, TALKS, span="response").values.reshape(len(TALKS), -1)
    np.testing.assert_allclose(grouped, whole, atol=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_moments_are_those_of_all_tokens_together(llama, covariance):
    tokens = pp.capture(llama, MANY, reduce="tokens").values.astype(np.float64)
    for budget in (1, 64, 10_000):
        moments = pp.capture(llama, MANY, reduce="moments", covariance=covariance, tokens_per_batch=budget)
        assert moments.n.tolist() == [len(tokens)] * N_LAYERS
        assert moments.n_dialogues == len(MANY)
        np.testing.assert_allclose(moments.mean, tokens.mean(axis=0), atol=1e-6)
        expected = np.stack([np.cov(tokens[:, layer].T) for layer in range(N_LAYERS)])
        seen = moments.covariance if covariance == "full" else [np.diag(row) for row in moments.covariance]
        wanted = expected if covariance == "full" else [np.diag(np.diag(row)) for row in expected]
        np.testing.assert_allclose(seen, wanted, atol=1e-7, rtol=1e-5)
        np.testing.assert_allclose(moments.std, tokens.std(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_moments_of_parts_merge_to_the_moments_of_the_whole(llama, covariance, tmp_path):
    how = {"reduce": "moments", "covariance": covariance}
    whole = pp.capture(llama, MANY, **how)
    parts = [pp.capture(llama, MANY[start : start + 7], **how) for start in range(0, len(MANY), 7)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged + part
    assert merged.n.tolist() == whole.n.tolist()
    assert merged.n_dialogues == len(MANY)
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-7)
    np.testing.assert_allclose(merged.scatter, whole.scatter, atol=1e-6 * np.abs(whole.scatter).max())
    merged.save(tmp_path / "moments.safetensors")
    again = pp.activations.Moments.load(tmp_path / "moments.safetensors")
    np.testing.assert_array_equal(again.scatter, merged.scatter)
    assert (again.layers, again.n_dialogues, again.source) == (merged.layers, len(MANY), merged.source)


def test_moments_keep_their_digits_far_from_zero():
    rng = np.random.default_rng(0)
    tokens = 1e6 + rng.normal(size=(10_000, 4))
    whole = pp.activations.Moments(np.array([0]), np.zeros((1, 4)), np.zeros((1, 4)), (0,), 0)
    for part in np.array_split(tokens, 37):
        centred = part - part.mean(axis=0)
        whole = whole + pp.activations.Moments(
            np.array([len(part)]), part.mean(axis=0)[None], (centred**2).sum(axis=0)[None], (0,), 1
        )
    np.testing.assert_allclose(whole.covariance[0], tokens.var(axis=0, ddof=1), rtol=1e-8)


def test_moments_that_do_not_belong_together_are_not_merged(llama, tmp_path):
    moments = pp.capture(llama, TALKS, reduce="moments")
    with pytest.raises(pp.PersonaProbeError, match=r"layers differ, \(0, 1, 2\) and \(1,\)"):
        moments + pp.capture(llama, TALKS, reduce="moments", layers=1)
    with pytest.raises(pp.PersonaProbeError, match="model_hash differ"):
        moments + replace(moments, source={**moments.source, "model_hash": "other"})
    with pytest.raises(pp.PersonaProbeError, match="sink_ratio differ"):
        pp.capture(llama, TALKS, reduce="moments", sink_ratio=None) + moments
    with pytest.raises(pp.PersonaProbeError, match="two tokens"):
        _ = pp.capture(llama, TALKS[:1], span="last_prompt_token", reduce="moments").covariance
    (tmp_path / "x").write_bytes(b"no tensors")
    with pytest.raises(pp.PersonaProbeError, match="does not hold moments"):
        pp.activations.Moments.load(tmp_path / "x")


def test_a_sink_is_a_token_ten_times_as_long_as_the_median():
    hidden = torch.ones(2, 7, 4)
    hidden[0, 0] *= 10.5
    hidden[0, 3] *= 9.5
    hidden[1, 6] *= 1000  # padding
    real = torch.ones(2, 7, dtype=torch.bool)
    real[1, 5:] = False
    assert sink_tokens(hidden, real, SINK_RATIO).nonzero().tolist() == [[0, 0]]


@pytest.fixture
def with_a_sink(llama):
    """A model that gives the word "the" an enormous norm in the first layer, as Qwen and Gemma do with some tokens."""
    llama.hf.model.embed_tokens.weight.data[llama.tokenizer.convert_tokens_to_ids("Ġthe")] *= 500
    return llama


def test_sinks_are_left_out_of_means_and_moments_and_counted(with_a_sink):
    dialogue = TALKS[0]
    tokens = pp.capture(with_a_sink, [dialogue], span="response", reduce="tokens", layers=0)
    sinks = (tokens.table["token"] == "Ġthe").to_numpy()
    assert sinks.any()
    mean = pp.capture(with_a_sink, [dialogue], span="response", layers=0)
    np.testing.assert_allclose(mean.values[0, 0], tokens.values[~sinks, 0].mean(axis=0), atol=1e-5)
    assert mean.table["n_sinks"].tolist() == [sinks.sum()]
    assert mean.source["sinks_left_out"] == [sinks.sum()]
    moments = pp.capture(with_a_sink, [dialogue], span="response", reduce="moments", layers=0)
    assert moments.n.tolist() == [(~sinks).sum()]
    np.testing.assert_allclose(moments.mean[0], tokens.values[~sinks, 0].mean(axis=0), atol=1e-5)
    kept = pp.capture(with_a_sink, [dialogue], span="response", layers=0, sink_ratio=None)
    np.testing.assert_allclose(kept.values[0, 0], tokens.values[:, 0].mean(axis=0), rtol=1e-4)
    assert "n_sinks" not in kept.table


def test_a_span_of_nothing_but_sinks_stays_whole(llama):
    only = talk("What should I do about the fever?", "Rest", id="only")
    encoded = llama.template.encode(only)
    llama.hf.model.embed_tokens.weight.data[list(set(encoded.input_ids[encoded.span("response")]))] *= 500
    tokens = pp.capture(llama, [only], span="response", reduce="tokens", layers=0)
    captured = pp.capture(llama, [only], span="response", layers=0)
    assert np.linalg.norm(captured.values) > 10
    np.testing.assert_allclose(captured.values[0], tokens.values.mean(axis=0), rtol=1e-5)
    assert captured.table["n_sinks"].tolist() == [0]


def test_nothing_runs_below_the_deepest_layer_that_is_read(llama):
    ran = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in llama.hf.named_modules()
        if name in ("model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "lm_head")
    ]
    shallow = pp.capture(llama, TALKS, layers=[0, 1])
    assert not {"model.layers.2", "model.norm", "lm_head"} & set(ran)
    pp.capture(llama, TALKS)
    assert "lm_head" not in ran
    for handle in handles:
        handle.remove()
    np.testing.assert_array_equal(shallow.values, pp.capture(llama, TALKS).values[:, :2])


def test_what_comes_after_a_span_is_not_run(llama):
    widths = []
    handle = llama.stream.backbone.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    captured = pp.capture(llama, TALKS, span="last_prompt_token")
    handle.remove()
    lengths = [llama.template.encode(dialogue).prompt_length for dialogue in TALKS]
    assert max(widths) == max(lengths)
    for row, dialogue in enumerate(TALKS):
        expected = reported(llama, dialogue)[:-1, lengths[row] - 1]
        np.testing.assert_allclose(captured.values[row, :-1], expected, atol=1e-5)


def test_batches_hold_the_budget_and_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 300, size=200).tolist()
    made = list(batches(lengths, 1000))
    assert sorted(row for rows in made for row in rows) == list(range(200))
    assert all(len(rows) * max(lengths[row] for row in rows) <= 1000 for rows in made)
    assert list(batches([5000, 3], 1000)) == [[0], [1]]


def test_a_batch_that_is_too_much_is_halved_and_nothing_is_lost(llama, monkeypatch):
    """A GPU that holds three rows: what CUDA raises there is raised here."""
    expected = pp.capture(llama, MANY)
    moments = pp.capture(llama, MANY, reduce="moments")
    forward, sizes = llama.stream.backbone.forward, []

    def small(*args, **kwargs):
        result = forward(*args, **kwargs)  # memory runs out late, after the hooks have seen some layers
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return result

    monkeypatch.setattr(llama.stream.backbone, "forward", small)
    np.testing.assert_allclose(pp.capture(llama, MANY).values, expected.values, atol=1e-5)
    assert max(sizes) > 3
    again = pp.capture(llama, MANY, reduce="moments")
    assert again.n.tolist() == moments.n.tolist()
    np.testing.assert_allclose(again.mean, moments.mean, atol=1e-6)


def test_a_dialogue_too_long_for_the_gpu_is_named():
    def never(_rows):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(pp.PersonaProbeError, match="dialogue 'd1' alone does not fit"):
        halving([1, 2], never, lambda row: f"'d{row}'")


def test_other_errors_are_not_taken_for_too_little_memory(llama, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(llama.stream.backbone, "forward", broken)
    with pytest.raises(RuntimeError, match="something else"):
        pp.capture(llama, MANY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tokens_per_batch": 0}, "tokens_per_batch is 0"),
        ({"sink_ratio": 0.5}, "sink_ratio is 0.5"),
        ({"reduce": "moments", "covariance": "half"}, "covariance is 'half'"),
    ],
)
def test_bad_settings_are_named(llama, arguments, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.capture(llama, TALKS, **arguments)


def test_d_model_is_the_stream_s(llama):
    assert pp.capture(llama, TALKS, reduce="tokens").values.shape[1:] == (N_LAYERS, D_MODEL)


def test_rows_whose_positions_would_change_the_others_run_apart():
    assert list(batches([9, 3, 8, 2], 100, border=7)) == [[0, 2], [1, 3]]
    assert list(batches([9, 3, 8, 2], 100)) == [[0, 2, 1, 3]]


def test_long_context_rope_reads_short_dialogues_as_if_alone(tokenizer):
    model = long_rope(tokenizer, 20)
    lengths = [len(model.template.encode(dialogue).input_ids) for dialogue in TALKS]
    assert min(lengths) < 20 < max(lengths)
    together, alone = pp.capture(model, TALKS), pp.capture(model, TALKS, tokens_per_batch=1)
    np.testing.assert_allclose(together.values, alone.values, atol=1e-5)


def test_what_is_not_finite_is_no_sink(llama):
    hidden = torch.ones(1, 5, 4)
    hidden[0, 2] = torch.inf
    assert not sink_tokens(hidden, torch.ones(1, 5, dtype=torch.bool), SINK_RATIO).any()
    llama.hf.model.embed_tokens.weight.data[:] = torch.inf
    with pytest.raises(pp.PersonaProbeError, match="not finite"):
        pp.capture(llama, TALKS, reduce="moments")


def test_a_steered_capture_says_so_and_joins_no_other(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((N_LAYERS, D_MODEL)))
    plain = pp.capture(llama, TALKS)
    with pp.steer(llama, direction, layers=1, scope="response", strength=100.0):
        steered = pp.capture(llama, TALKS)
    assert (steered.source["steered"], "sink_ratio" in steered.source) == (True, False)
    with pytest.raises(pp.PersonaProbeError, match="cannot be concatenated"):
        pp.Activations.concatenate([plain, steered])
