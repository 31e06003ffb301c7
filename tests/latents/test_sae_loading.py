import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import persona_probe as pp
from persona_probe.latents.loading import load_sae
from persona_probe.latents.sae import LatentWarning, Sae
from tests.conftest import D_MODEL
from tests.latents.conftest import KINDS, LAYER, WIDTH, make_inner, make_sae

NORMALISED = ("none", "layer_norm", "constant_norm_rescale")


def hidden(rows=7):
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3 + 0.5


def edit_config(folder, **changes):
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("normalised", NORMALISED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_sae_is_opened_and_its_rows_are_what_decoding_adds(tmp_path, kind, normalised):
    saved = make_inner(kind, normalize_activations=normalised)
    saved.save_model(tmp_path)
    sae = load_sae(tmp_path)
    assert (sae.layer, sae.width, sae.d_model) == (LAYER, WIDTH, D_MODEL)
    assert kind.split()[0] in repr(sae)
    x = hidden()
    acts = sae.encode(x)
    torch.testing.assert_close(acts, saved.encode(x))
    chosen = [40, 3, 17]
    scale = sae.output_scale()
    decoded = sae.decode(acts)
    for latent, row in zip(chosen, sae.rows(chosen), strict=True):
        more = acts.clone()
        more[:, latent] += 2.0
        sae.encode(x)
        torch.testing.assert_close(sae.decode(more) - decoded, 2.0 * row * scale * torch.ones(7, 1), atol=2e-5, rtol=0)
    np.testing.assert_allclose(sae.direction(17).at(LAYER), sae.rows([17])[0], rtol=1e-6)
    angles = torch.cosine_similarity(torch.tensor(sae.decoder()[chosen]), sae.rows(chosen))
    torch.testing.assert_close(angles, torch.ones(3))
    torch.testing.assert_close(sae.reconstruct(x), decoded)


@pytest.mark.parametrize("normalised", NORMALISED)
@pytest.mark.parametrize("kind", KINDS)
def test_some_latents_are_encoded_as_all_are(kind, normalised):
    sae = make_sae(kind, normalize_activations=normalised)
    wanted, x = torch.tensor([5, 47, 0, 12]), hidden(60).reshape(4, 15, D_MODEL)
    some = sae.encode_some(x, wanted)
    scale = sae.output_scale()
    torch.testing.assert_close(some, sae.encode(x)[..., wanted])
    torch.testing.assert_close(torch.as_tensor(scale), torch.as_tensor(sae.output_scale()))
    assert some.count_nonzero() > 0


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
def test_saes_trained_with_batches_are_opened_as_saved_for_inference(tmp_path, kind):
    from sae_lens.registry import get_sae_training_class

    sae_class, config_class = get_sae_training_class(kind)
    more = {"matryoshka_widths": [8, 24, WIDTH]} if kind == "matryoshka_batchtopk" else {}
    trained = sae_class(config_class(D_MODEL, WIDTH, k=6, **more))
    trained.topk_threshold.fill_(0.04)
    trained.W_dec.data.normal_(generator=torch.Generator().manual_seed(0))
    trained.W_enc.data.copy_(0.02 * trained.W_dec.T)
    trained.save_inference_model(tmp_path)
    sae = load_sae(tmp_path, layer=2)
    assert (sae.layer, sae.card["architecture"]) == (2, "jumprelu")
    acts = sae.encode(hidden())
    assert 0.04 < acts[acts > 0].min() < 0.1
    torch.testing.assert_close(acts[:, [3]] @ sae.rows([3]), acts[:, [3]] @ sae.inner.W_dec[[3]])


def test_a_half_precision_saes_rows_keep_their_digits(tmp_path):
    inner = make_inner()
    with torch.no_grad():
        inner.b_dec.fill_(100.0)
    inner.save_model(tmp_path)
    rows = load_sae(tmp_path, dtype="bfloat16").rows(range(WIDTH))
    torch.testing.assert_close(rows, inner.W_dec.bfloat16().float())


def test_a_scale_that_the_weights_lack_must_be_given(tmp_path):
    inner = make_inner(normalize_activations="expected_average_only_in")
    inner.save_model(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match=r"expected_average_only_in.*activation_scale="):
        load_sae(tmp_path)
    sae, x = load_sae(tmp_path, activation_scale=0.25), hidden()
    torch.testing.assert_close(sae.encode(x), inner.encode(0.25 * x))
    torch.testing.assert_close(sae.reconstruct(x), inner(0.25 * x) / 0.25)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(pp.PersonaProbeError, match="must be positive and finite"):
            load_sae(tmp_path, activation_scale=scale)


@pytest.mark.parametrize(
    ("normalised", "scale", "said"),
    [
        ("covariance_whitening", None, "whitened"),
        ("covariance_whitening", 2.0, "whitened"),
        ("layer_norm", 2.0, "leave out activation_scale"),
    ],
)
def test_a_scale_that_does_not_belong_is_refused(tmp_path, normalised, scale, said):
    make_inner(normalize_activations=normalised).save_model(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match=said):
        load_sae(tmp_path, activation_scale=scale)


def test_the_layer_is_read_from_the_hook_or_given(tmp_path):
    make_inner(hook_name="blocks.2.hook_resid_pre").save_model(tmp_path / "pre")
    assert load_sae(tmp_path / "pre").layer == 1
    assert load_sae(tmp_path / "pre", layer=5).layer == 5
    make_inner(hook_name=None).save_model(tmp_path / "none")
    with pytest.raises(pp.PersonaProbeError, match=r"does not say which layer.*layer="):
        load_sae(tmp_path / "none")
    make_inner(hook_name="blocks.2.hook_mlp_out").save_model(tmp_path / "mlp")
    with pytest.raises(pp.PersonaProbeError, match=r"blocks\.2\.hook_mlp_out.*not a block's output"):
        load_sae(tmp_path / "mlp")


def broken(folder, how):
    make_inner().save_model(folder)
    weights = folder / "sae_weights.safetensors"
    if how == "no config":
        (folder / "cfg.json").unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "corrupt config":
        (folder / "cfg.json").write_text('{"d_in": 32,')
    elif how == "corrupt weights":
        weights.write_bytes(b"nothing")
    elif how == "no architecture":
        config = json.loads((folder / "cfg.json").read_text())
        del config["architecture"]
        (folder / "cfg.json").write_text(json.dumps(config))
    elif how == "unknown architecture":
        edit_config(folder, architecture="telepathic")
    elif how == "wrong shape":
        edit_config(folder, d_sae=WIDTH + 1)
    elif how == "a weight missing":
        save_file({k: v for k, v in load_file(weights).items() if k != "b_enc"}, weights)
    elif how == "NaN":
        save_file({k: v * float("nan") if k == "b_enc" else v for k, v in load_file(weights).items()}, weights)
    elif how == "attention heads":
        edit_config(folder, reshape_activations="hook_z", metadata={"hook_name": "blocks.1.attn.hook_z"})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no config", "no cfg.json.*converter="),
        ("no weights", r"sae_weights\.safetensors"),
        ("corrupt config", "cannot be loaded.*line 1"),
        ("corrupt weights", "cannot be loaded.*header"),
        ("no architecture", "there is no 'architecture' in it"),
        ("unknown architecture", "telepathic"),
        ("wrong shape", "size mismatch"),
        ("a weight missing", "Missing key.*b_enc"),
        ("NaN", "b_enc is not finite"),
        ("attention heads", "attention heads"),
    ],
)
def test_a_broken_folder_is_an_error_that_names_it_and_what_is_wrong(tmp_path, how, said):
    broken(tmp_path / "sae", how)
    with pytest.raises(pp.PersonaProbeError, match=f"(?s)sae.*{said}") as raised:
        load_sae(tmp_path / "sae")
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match=r"there is no such folder; .*sae_id="):
        load_sae(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_transcoder"])
def test_transcoders_are_refused(tmp_path, kind):
    make_inner(kind, d_out=D_MODEL, apply_b_dec_to_input=False).save_model(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match=f"is a {kind}, not an SAE"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("release", "sae_id", "said"),
    [
        ("gemma-scope-2b-pt-res-canonicl", "x", r"has no release .*did you mean 'gemma-scope-2b-pt-res-canonical'"),
        (
            "gemma-scope-2b-pt-res-canonical",
            "layer_12/width_16k/canonicl",
            r"has no SAE .*did you mean 'layer_12/width_16k/canonical'",
        ),
        ("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical", "cannot be loaded.*offline"),
        ("nobody/nothing", "x", "nobody/nothing/x: the SAE cannot be loaded.*offline"),
    ],
)
def test_releases_that_cannot_be_had_are_named_in_one_line(release, sae_id, said):
    with pytest.raises(pp.PersonaProbeError, match=said) as raised:
        load_sae(release, sae_id)
    assert "\n" not in str(raised.value)


def test_another_format_is_read_by_saelens_converter(tmp_path):
    from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader

    folder = tmp_path / "sparsify" / "layers.2"
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"d_in": D_MODEL, "num_latents": WIDTH, "k": 4}))
    inner = make_inner()
    # SAELens' Sparsify loader takes the decoder as (d_model, latent).
    weights = {"encoder.weight": inner.W_enc.T, "encoder.bias": inner.b_enc, "W_dec": inner.W_dec.T}
    weights["b_dec"] = inner.b_dec
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, folder / "sae.safetensors")
    sae = load_sae(folder, converter=sparsify_disk_loader)
    assert (sae.layer, sae.width) == (2, WIDTH)
    torch.testing.assert_close(sae.rows([4]), inner.W_dec[[4]])
    with pytest.raises(pp.PersonaProbeError, match=r"sparsify.*cannot be loaded"):
        load_sae(folder)


def test_a_model_that_it_cannot_read_is_refused_and_a_strange_one_warned_of(llama, tmp_path):
    with pytest.raises(pp.PersonaProbeError, match=r"width 8.*d_model=32: it is the SAE of another model"):
        make_sae(d_in=8).check_model(llama)
    deep = make_sae()
    deep.layer = 3
    with pytest.raises(pp.PersonaProbeError, match=r"layer 3, .*layers 0 to 2"):
        deep.check_model(llama)
    sae = make_sae()
    sae.card["model_name"] = "google/gemma-2-2b"
    with pytest.warns(LatentWarning, match=r"says it is for google/gemma-2-2b.*reconstruction"):
        sae.check_model(llama)
    sae.card["models"] = {"chat": "0123456789abcdef"}
    with pytest.warns(LatentWarning, match=r"trained on chat \(0123456789abcdef\).*not known to descend"):
        sae.check_model(llama)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae.card["models"] = {"llama": llama.fingerprint()}
        sae.check_model(llama)
        sae.card = {"model_name": "meta/" + llama.name.rsplit("/", 1)[-1].upper()}
        sae.check_model(llama)


@pytest.mark.parametrize(
    ("latents", "said"),
    [([], "no latents"), ([WIDTH], f"latents 0 to {WIDTH - 1}"), ([-1], "latent -1"), ([1, 2, 1], "1 is named twice")],
)
def test_latents_that_do_not_exist(sae, latents, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        sae.rows(latents)


def test_weights_moved_in_inference_mode_can_still_be_differentiated_through(sae):
    sae.inner.device = torch.device("meta")  # as if it lay elsewhere
    with torch.inference_mode():
        sae.encode(hidden())
    assert sae.inner.device == torch.device("cpu")
    x = hidden().requires_grad_()
    sae.encode(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_negative_layer_is_refused(llama, tmp_path):
    make_inner().save_model(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="layer is -1; layers are counted from the first, which is 0"):
        load_sae(tmp_path, layer=-1)
    with pytest.raises(pp.PersonaProbeError, match=r"reads layer -1, .* has layers 0 to"):
        Sae(make_inner(), -1, "last", {}).check_model(llama)


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        ([3.9], "latent 3.9 is of type float"),
        ([np.float32(3)], "is of type float32"),
        ("12", "latent '1' is of type str"),
        (["7"], "latent '7' is of type str"),
        ([False, True], "latent False is of type bool"),
        (np.array([True]), "is of type bool"),
        (7, "latents is 7; give a list"),
        ([None], "is of type NoneType"),
        ([], "there are no latents"),
        ([2, 2], "latent 2 is named twice"),
        ([-1], "latent -1 does not exist"),
    ],
)
def test_latents_are_whole_numbers(sae, latents, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        sae.check_latents(latents)


def test_whole_numbers_of_numpy_and_torch_are_latents(sae):
    for latents in (np.array([3, 1]), torch.tensor([3, 1]), (np.int32(3), 1)):
        found = sae.check_latents(latents)
        assert found == [3, 1]
        assert {type(latent) for latent in found} == {int}


@pytest.mark.parametrize("version", ["5.9.0", "6.20.0"])
@pytest.mark.parametrize("name", ["gelu", "tanh-relu", "ReLU", "topk", "jumprelu"])
def test_an_activation_function_that_would_be_opened_as_relu_is_refused(tmp_path, version, name):
    make_inner().save_model(tmp_path)
    edit_config(tmp_path, activation_fn=name, sae_lens_version=version)
    with pytest.raises(pp.PersonaProbeError, match=f"activation function '{name}', .* would open it as ReLU instead"):
        load_sae(tmp_path)
    edit_config(tmp_path, activation_fn="relu")
    assert load_sae(tmp_path, layer=LAYER).card["architecture"] == "standard"


def test_old_names_and_topk_with_its_number_are_read(tmp_path):
    make_inner("topk").save_model(tmp_path)
    edit_config(tmp_path, architecture="standard", activation_fn_str="topk", activation_fn_kwargs={"k": 6})
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["k"], config["metadata"]
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"hook_name": f"blocks.{LAYER}.hook_resid_post"}))
    sae = load_sae(tmp_path)
    assert (sae.card["architecture"], sae.inner.cfg.k) == ("topk", 6)
    edit_config(tmp_path, activation_fn_kwargs={})
    with pytest.raises(pp.PersonaProbeError, match=r"'topk', .* would open it as ReLU"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input is 'false' in its config; it must be true or false"),
        ({"apply_b_dec_to_input": None}, "apply_b_dec_to_input is None"),
        ({"rescale_acts_by_decoder_norm": 0.5}, "rescale_acts_by_decoder_norm is 0.5"),
        ({"normalize_activations": "batch_norm"}, "normalize_activations must be"),
        ({"architecture": "perceptron"}, "there is no 'perceptron'"),
        ({"reshape_activations": "hook_q"}, "reads attention heads"),
    ],
)
def test_a_setting_that_is_not_understood_is_refused(tmp_path, changes, said):
    make_inner().save_model(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(pp.PersonaProbeError, match=said):
        load_sae(tmp_path)


def test_a_topk_sae_needs_its_number(tmp_path):
    make_inner("topk").save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["k"]
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(pp.PersonaProbeError, match="is a topk SAE, but its config does not give k"):
        load_sae(tmp_path)


def test_two_layers_and_heads_are_refused_and_other_entries_kept(tmp_path):
    make_inner().save_model(tmp_path)
    about = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    edit_config(tmp_path, metadata=about | {"hook_layer": 2})
    with pytest.raises(pp.PersonaProbeError, match=r"names the hook 'blocks\.1\.hook_resid_post' and hook_layer=2"):
        load_sae(tmp_path)
    assert load_sae(tmp_path, layer=2).layer == 2
    edit_config(tmp_path, metadata=about | {"hook_head_index": 3})
    with pytest.raises(pp.PersonaProbeError, match="reads attention head 3"):
        load_sae(tmp_path)
    edit_config(tmp_path, metadata=about, l1_coefficient=0.1)
    assert load_sae(tmp_path).card["config_not_used"] == {"l1_coefficient": 0.1}
