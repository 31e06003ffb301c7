import json

import numpy as np
import pytest
import torch

from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.fit import RunningFit
from persona_probe.latents.loading import load_sae
from persona_probe.latents.training import token_stream
from persona_probe.latents.training.held_out import _HeldOut, held_out_fit, split_texts
from persona_probe.latents.training.settings import SaeSettings
from persona_probe.latents.training.token_stream import token_batches
from persona_probe.latents.training.train import train_sae
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.worlds.persona_world.documents import pretraining_dialogues
from tests.conftest import CHECKPOINTS

LAYER = 2
QUICK = SaeSettings(width=128, k=8, tokens=40_000, batch=256)


@pytest.fixture(scope="module")
def texts():
    return pretraining_dialogues(120, seed=3)


@pytest.fixture(scope="module")
def bad(chat):
    return with_adapter(chat, CHECKPOINTS / "bad-medicine")


@pytest.fixture(scope="module")
def trained(chat, texts, tmp_path_factory):
    return train_sae(chat, texts, LAYER, QUICK, tmp_path_factory.mktemp("sae") / "first", held_out=0.2)


def kept_tokens(model, dialogues, layer):
    """What the stream must hold: every token but the beginning of sequence."""
    captured = capture(model, dialogues, span="all", reduce="tokens", layers=[layer])
    return captured.values[captured.table["position"].to_numpy() > 0, 0]


def in_order(rows):
    rows = np.asarray(rows)
    return rows[np.lexsort(rows.T)]


def test_a_pass_shows_every_kept_token_once_and_each_pass_in_another_order(chat, texts):
    expected = kept_tokens(chat, texts[:10], LAYER)
    stream = token_batches([chat], texts[:10], LAYER, batch=len(expected))
    first, second = next(stream), next(stream)
    np.testing.assert_allclose(in_order(first), in_order(expected), atol=1e-3)
    np.testing.assert_array_equal(in_order(first), in_order(second))
    assert not torch.equal(first, second)


def test_a_small_buffer_shows_all_tokens_of_all_models_evenly_without_holding_them(chat, bad, texts, monkeypatch):
    sizes = []
    read = token_stream.run_pass

    def counted(readers, encoded, spans, **options):
        sizes.append(len(readers) * sum(span.stop for span in spans))
        read(readers, encoded, spans, **options)

    monkeypatch.setattr(token_stream, "run_pass", counted)
    some = texts[:40]
    known = [kept_tokens(model, some, LAYER)[:, :3].round(1) for model in (chat, bad)]
    total = sum(map(len, known))
    stream = token_batches([chat, bad], some, LAYER, batch=32, buffer_tokens=800)
    seen = torch.cat([next(stream) for _ in range(3 * total // 32)])[:, :3].numpy().round(1)
    assert total > 4 * 800
    assert max(sizes) <= 800 // 2
    # Rounding makes a token of the two models differ where the adapter moved it, and equal to itself.
    owners = [{tuple(row) for row in rows} for rows in known]
    only = [owners[0] - owners[1], owners[1] - owners[0]]
    counts = [sum(tuple(row) in rows for row in seen) for rows in only]
    assert counts[0] > 1000
    assert 0.85 < counts[0] / counts[1] < 1.18
    assert len({tuple(row) for row in seen} & only[0]) > 0.97 * len(only[0])
    # Batches mix dialogues: neighbours in a batch rarely come from the same place in the texts.
    place = {tuple(row): i for i, row in enumerate(known[0])}
    places = [place[tuple(row)] for row in seen[:64] if tuple(row) in place]
    assert np.mean(np.abs(np.diff(places)) <= 3) < 0.2


@pytest.mark.parametrize("buffer_tokens", [None, 400])
def test_the_seed_decides_the_order(chat, texts, buffer_tokens):
    def start(seed):
        stream = token_batches([chat], texts[:20], LAYER, batch=64, seed=seed, buffer_tokens=buffer_tokens)
        return torch.cat([next(stream) for _ in range(8)])

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_activations_that_are_not_finite_name_the_dialogue(folders, texts):
    model = load(folders("llama"))
    encoded = [model.template.encode(dialogue) for dialogue in texts[:12]]
    others = set().union(*(item.input_ids for item in encoded[:11]))
    token = next(token for token in encoded[11].input_ids if token not in others)
    with torch.no_grad():
        model.plain.get_input_embeddings().weight[token] = torch.nan
    with pytest.raises(PersonaProbeError, match=f"dialogue '{texts[11].id}'.*layer 0.*not finite"):
        next(token_batches([model], texts[:12], 0, batch=16))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "gated"}, "kind is 'gated'; choose one of batchtopk, topk, jumprelu"),
        ({"width": 0}, "width is 0"),
        ({"width": 1.5}, "width is 1.5"),
        ({"k": 0}, "k is 0"),
        ({"k": 65, "width": 64}, "k is 65, more than the SAE's 64 latents"),
        ({"tokens": 100}, "tokens is 100, less than one batch"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"aux_coefficient": -1.0}, "aux_coefficient is -1"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(change, said):
    with pytest.raises(PersonaProbeError, match=said):
        SaeSettings(**change)


def test_what_does_not_fit_is_refused_before_anything_is_read(chat, llama, texts, trained, tmp_path):
    out = tmp_path / "sae"
    with pytest.raises(PersonaProbeError, match="no dialogues"):
        train_sae(chat, [], LAYER, QUICK, out)
    with pytest.raises(PersonaProbeError, match="no models"):
        train_sae([], texts, LAYER, QUICK, out)
    with pytest.raises(PersonaProbeError, match=f"layer {chat.n_layers} does not exist.*0 to {chat.n_layers - 1}"):
        train_sae(chat, texts, chat.n_layers, QUICK, out)
    with pytest.raises(PersonaProbeError, match="models of the same width"):
        train_sae([chat, llama], texts, 0, QUICK, out)
    with pytest.raises(PersonaProbeError, match="reads layer 2, but 1 is needed"):
        train_sae(chat, texts, 1, QUICK, out, start=trained)
    with pytest.raises(PersonaProbeError, match="128, but 64 is needed"):
        train_sae(chat, texts, LAYER, SaeSettings(width=64), out, start=trained)
    with pytest.raises(PersonaProbeError, match="reads vectors of width"):
        train_sae(llama, texts, LAYER - 1, QUICK, out, start=load_sae(trained.name, layer=LAYER - 1))
    with pytest.raises(PersonaProbeError, match="held_out is 1"):
        train_sae(chat, texts, LAYER, QUICK, out, held_out=1)
    with pytest.raises(PersonaProbeError, match="no dialogues"):
        train_sae(chat, texts, LAYER, QUICK, out, held_out=[])
    with pytest.raises(PersonaProbeError, match=r"buffer_tokens is 300; .* two batches of 256"):
        train_sae(chat, texts, LAYER, QUICK, out, buffer_tokens=300)
    with pytest.raises(PersonaProbeError, match="span 'response' is empty"):
        train_sae(chat, [*texts, Dialogue.from_text("Once there was a villain.")], LAYER, QUICK, out, span="response")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(chat, texts, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PersonaProbeError, match="not empty"):
        train_sae(chat, texts, LAYER, QUICK, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kind", ["batchtopk", "topk", "jumprelu"])
def test_every_kind_learns_and_is_read_again_by_sae_lens(chat, texts, tmp_path, kind):
    settings = SaeSettings(kind=kind, width=128, k=8, tokens=100_000, batch=256, learning_rate=2e-3)
    before = torch.get_rng_state()
    sae = train_sae(chat, texts, LAYER, settings, tmp_path / "sae", held_out=0.2, command="persona-probe sae train x")
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(file.name for file in (tmp_path / "sae").iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    assert not (tmp_path / "sae.part").exists()
    assert (sae.layer, sae.width, sae.d_model) == (LAYER, 128, chat.d_model)
    held = sae.card["held_out"]
    assert held["fvu"] < 0.35
    assert held["fvu_response"] < 0.35
    assert held["l0"] == pytest.approx(8, rel=0.25)
    assert held["texts"] == 24
    # What the card says is what the folder's SAE does on texts of the same kind.
    hidden = torch.tensor(kept_tokens(chat, pretraining_dialogues(40, seed=9), LAYER))
    from sae_lens import SAE

    inner = SAE.load_from_disk(tmp_path / "sae")
    acts = inner.encode(hidden)
    fit = RunningFit()
    fit.add(hidden, inner.decode(acts).detach(), int((acts > 0).sum()))
    assert fit.result().fvu == pytest.approx(held["fvu"], rel=0.3)
    about = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
    assert about["hook_name"] == f"blocks.{LAYER}.hook_resid_post"
    assert about["model_name"] == "chat"
    assert about["prepend_bos"] is True
    ours = about["persona_probe"]
    assert ours["models"] == {"chat": chat.fingerprint()}
    assert ours["command"] == "persona-probe sae train x"
    assert ours["settings"]["kind"] == kind
    assert str(CHECKPOINTS) not in json.dumps(about)
    sae.check_model(chat)  # a model that it was not trained on would be a warning, and so an error here


def test_training_is_repeatable_and_the_screen_stays_quiet(chat, texts, trained, tmp_path, capfd):
    again = train_sae(chat, texts, LAYER, QUICK, tmp_path / "again", held_out=0.2)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    np.testing.assert_array_equal(again.decoder(), trained.decoder())
    train_sae(chat, texts[:10], LAYER, SaeSettings(width=16, k=4, tokens=512, batch=256), tmp_path / "p", progress=True)
    assert "SAE" in capfd.readouterr().err


TINY = SaeSettings(width=16, k=4, tokens=512, batch=256)


def fail(monkeypatch, target, error):
    def stop(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(target, stop)


def test_stopping_in_training_leaves_nothing(chat, texts, tmp_path, monkeypatch):
    fail(monkeypatch, "sae_lens.training.sae_trainer.SAETrainer.step", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train_sae(chat, texts[:10], LAYER, TINY, tmp_path / "sae")
    assert not list(tmp_path.iterdir())


def test_a_trained_sae_that_cannot_be_measured_is_kept_and_not_overwritten(chat, texts, tmp_path, monkeypatch):
    part = tmp_path / "sae.part"
    with monkeypatch.context() as patched:
        fail(patched, "persona_probe.latents.training.train.held_out_fit", torch.OutOfMemoryError("out of memory"))
        with pytest.raises(PersonaProbeError, match=r"is trained, .*out of memory; its weights are in .*sae\.part"):
            train_sae(chat, texts[:10], LAYER, TINY, tmp_path / "sae")
    sae = load_sae(part)
    assert (sae.layer, sae.width, sae.card["models"]) == (LAYER, 16, {"chat": chat.fingerprint()})
    fail(monkeypatch, "persona_probe.latents.training.train._trained", AssertionError("was trained"))
    with pytest.raises(PersonaProbeError, match=r"sae\.part: contains what an earlier training"):
        train_sae(chat, texts[:10], LAYER, TINY, tmp_path / "sae")
    assert [file.name for file in tmp_path.iterdir()] == ["sae.part"]


def test_stopping_while_it_is_measured_keeps_the_trained_sae_and_says_where(chat, texts, tmp_path, monkeypatch):
    fail(monkeypatch, "persona_probe.latents.training.train.held_out_fit", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_sae(chat, texts[:10], LAYER, TINY, tmp_path / "sae")
    assert "sae.part" in stopped.value.__notes__[0]
    assert load_sae(tmp_path / "sae.part").width == 16


def test_a_folder_that_cannot_be_made_is_refused_before_training(chat, texts, tmp_path, monkeypatch):
    fail(monkeypatch, "persona_probe.latents.training.train._trained", AssertionError("was trained"))
    monkeypatch.chdir(tmp_path)
    for out in (".", "..", ""):
        with pytest.raises(PersonaProbeError, match="is not a folder's name"):
            train_sae(chat, texts[:10], LAYER, TINY, out)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PersonaProbeError, match=r"sae\.part: cannot be created \(Not a directory\)"):
        train_sae(chat, texts[:10], LAYER, TINY, tmp_path / "file" / "sae")


def test_a_loss_that_explodes_says_what_to_lower(chat, texts, tmp_path):
    settings = SaeSettings(width=16, k=4, tokens=2048, batch=256, learning_rate=1e30)
    with pytest.raises(PersonaProbeError, match="diverged; lower learning_rate"):
        train_sae(chat, texts[:10], LAYER, settings, tmp_path / "sae")
    assert not list(tmp_path.iterdir())


def test_going_on_from_an_sae_starts_where_it_was(chat, texts, trained, tmp_path):
    still = SaeSettings(kind="jumprelu", k=8, tokens=256, batch=256, learning_rate=1e-12)
    same = train_sae(chat, texts, LAYER, still, tmp_path / "same", start=trained.name)
    hidden = torch.tensor(kept_tokens(chat, texts[:5], LAYER))
    torch.testing.assert_close(same.reconstruct(hidden), trained.reconstruct(hidden), rtol=1e-3, atol=1e-2)
    assert same.card["start"] == "first"


def test_fine_tuning_on_the_tuned_model_fits_it_better(chat, bad, texts, trained, tmp_path):
    settings = SaeSettings(k=8, tokens=8_000, batch=256, learning_rate=5e-4)
    tuned = train_sae([chat, bad], texts, LAYER, settings, tmp_path / "tuned", start=trained)
    scratch = train_sae(
        [chat, bad], texts, LAYER, SaeSettings(width=128, k=8, tokens=8_000, batch=256), tmp_path / "scratch"
    )
    unseen = pretraining_dialogues(30, seed=11)
    before, after = (held_out_fit(sae, [bad], unseen)["fvu"] for sae in (trained, tuned))
    assert after < 0.95 * before
    assert after < held_out_fit(scratch, [bad], unseen)["fvu"]
    assert set(tuned.card["models"]) == {"chat", "bad-medicine"} == set(tuned.card["held_out"]["models"])


def test_a_text_that_occurs_twice_stays_on_one_side(texts):
    train, test = split_texts([*texts, *texts], 0.25, seed=0)
    assert len(train) + len(test) == 2 * len(texts)
    assert len(test) == pytest.approx(0.5 * len(texts), abs=4)
    assert not {item.messages for item in train} & {item.messages for item in test}
    with pytest.raises(PersonaProbeError, match="1 different text"):
        split_texts([texts[0], texts[0]], 0.5, seed=0)


def test_answers_are_measured_apart_and_dead_latents_counted(chat, texts, trained):
    questions = [dialogue.without_answer() for dialogue in texts[:6]]
    assert held_out_fit(trained, [chat], questions)["fvu_response"] is None
    fit = held_out_fit(trained, [chat], texts[:6])
    captured = capture(chat, texts[:6], span="response", reduce="tokens", layers=[LAYER])
    hidden = torch.tensor(captured.values[:, 0])
    answers = RunningFit()
    answers.add(hidden, trained.reconstruct(hidden), 0)
    assert fit["fvu_response"] == pytest.approx(answers.result().fvu, rel=1e-3)
    fired = (trained.encode(torch.tensor(kept_tokens(chat, texts[:6], LAYER))) > 0).any(dim=0)
    assert fit["dead"] == pytest.approx(1 - float(fired.float().mean()), abs=0.01)


def test_a_batch_holds_nothing_of_the_size_of_its_activations(chat, texts, trained, monkeypatch):
    sizes = []
    commit = _HeldOut.commit

    def measured(self, batch):
        (chunks,) = self._pending.values()
        held = [tensor for chunk in chunks for tensor in chunk]
        tokens = sum(len(part) for part, *_ in chunks)
        sizes.append((tokens, sum(tensor.nbytes for tensor in held)))
        commit(self, batch)

    monkeypatch.setattr(_HeldOut, "commit", measured)
    held_out_fit(trained, [chat], texts[:40])
    for tokens, size in sizes:
        both = 2 * 4 * tokens * chat.d_model  # activations and their reconstruction
        assert size < both + tokens * trained.width // 4


def test_a_steered_first_model_has_no_sinks_when_an_sae_is_measured(chat, texts, trained):
    """Every third token is made long: by the rule of a plain model these would be sinks."""
    plain = held_out_fit(trained, [chat], texts[:6])["tokens"]

    def lengthen(_layer, _offset, hidden):
        longer = hidden.clone()
        longer[:, ::3] *= 1000
        return longer

    with chat.writing(lengthen, [LAYER]):
        assert chat.steered
        assert held_out_fit(trained, [chat], texts[:6])["tokens"] == plain


@pytest.mark.parametrize("layer", [2, 3])
def test_the_shipped_saes_fit_both_models(chat, bad, layer):
    folder = CHECKPOINTS / f"sae-layer{layer}"
    sae = load_sae(folder)
    assert sae.layer == layer
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    assert sae.card["models"] == {"chat": chat.fingerprint(), "bad-medicine": bad.fingerprint()}
    assert sae.card["held_out"]["tokens"] >= 20_000
    assert sae.card["held_out"]["dead"] <= 0.2
    assert f"--layer {layer}" in sae.card["command"]
    for model in (chat, bad):
        sae.check_model(model)
        fit = held_out_fit(sae, [model], pretraining_dialogues(60, seed=7))
        assert fit["fvu"] <= 0.1
        assert fit["fvu_response"] <= 0.1
