import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import persona_probe as pp
from persona_probe.directions.formats.read import FORMATS, read_published
from persona_probe.models.stream.layers import LAYER_CONVENTION
from tests.conftest import D_MODEL, N_LAYERS

SHAPE = (N_LAYERS, D_MODEL)
TALK = pp.Dialogue.from_messages(
    [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Treat the fever."}]
)


def saved(content, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def rows(*shape, dtype=torch.float32, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_persona_vectors_count_hidden_states(llama, tmp_path):
    vectors = rows(N_LAYERS + 1, D_MODEL)
    path = saved(vectors, tmp_path / "evil_response_avg_diff.pt")
    direction = read_published(llama, path, "persona-vectors")
    assert direction.layers == (0, 1)  # of 0, 1, 2: the last hidden state is behind the final norm
    np.testing.assert_array_equal(direction.vectors, vectors[1:N_LAYERS])
    card = direction.card
    assert (card["finder"], card["model"], card["model_hash"]) == ("published", llama.name, llama.fingerprint())
    assert card["layer_convention"] == LAYER_CONVENTION
    assert "template_hash" not in card
    source = card["source"]
    assert source["format"] == "persona-vectors"
    assert not source["format_guessed"]
    assert source["file"] == "evil_response_avg_diff.pt"
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "hidden_states[i]" in source["layer_convention"]
    assert source["left_out"][0].startswith("row 0: the embedding")
    assert source["left_out"][1].startswith("row 3:")
    assert "after the final norm" in source["left_out"][1]
    assert source["span_by_file_name"] == "response"
    again = pp.Direction.load(direction.save(tmp_path / "kept"))
    assert again.card["source"] == source


def test_persona_vectors_row_is_the_hidden_state_of_our_layer(llama, tmp_path):
    """The numbering, against the model itself: their pipeline's reading and ours, on the same text."""
    tokens = llama.template.encode(TALK)
    with torch.inference_mode():
        states = llama.hf(input_ids=torch.tensor([tokens.input_ids]), output_hidden_states=True).hidden_states
    theirs = torch.stack([state[0].mean(dim=0) for state in states])
    direction = read_published(llama, saved(theirs, tmp_path / "x.pt"))
    ours = pp.capture(llama, [TALK], span="all", reduce="mean", sink_ratio=None)
    np.testing.assert_allclose(direction.vectors, ours.values[0, : N_LAYERS - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_assistant_axis_counts_blocks(llama, tmp_path, as_dict):
    axis = rows(*SHAPE, dtype=torch.bfloat16)
    pipeline = {"axis": axis, "default_mean": axis, "role_mean": axis, "n_default": 1, "n_roles": 275}
    path = saved(pipeline if as_dict else axis, tmp_path / "assistant_axis.pt")
    direction = read_published(llama, path)
    assert direction.layers == (0, 1, 2)
    assert direction.vectors.dtype == np.float32
    np.testing.assert_array_equal(direction.vectors, axis.float())
    source = direction.card["source"]
    assert source["format"] == "assistant-axis"
    assert source["format_guessed"]
    assert source.get("n_roles") == (275 if as_dict else None)
    assert len(source["left_out"]) == (2 if as_dict else 0)


def test_capping_configurations_are_read_experiment_by_experiment(llama, tmp_path):
    vectors = {f"layer_{n}/axis": {"layer": n, "vector": rows(D_MODEL) + n} for n in range(N_LAYERS)}
    capped = [{"vector": f"layer_{n}/axis", "cap": -0.5 * n} for n in (2, 1)]
    experiments = [
        {"id": "layers_1:3-p0.25", "interventions": [*capped, {"vector": "layer_0/axis", "coeff": 1.0}]},
        {"id": "twice", "interventions": [capped[0], capped[0]]},
    ]
    path = saved({"vectors": vectors, "experiments": experiments}, tmp_path / "capping_config.pt")
    direction = read_published(llama, path, experiment="layers_1:3-p0.25")
    assert direction.layers == (1, 2)
    np.testing.assert_array_equal(direction.at(2), vectors["layer_2/axis"]["vector"])
    assert direction.card["source"]["caps"] == [-0.5, -1.0]
    with pytest.raises(pp.PersonaProbeError, match=r"2 experiments; give experiment= one of layers_1:3-p0.25, twice"):
        read_published(llama, path)
    with pytest.raises(pp.PersonaProbeError, match=r"caps at layers \[2, 2\]"):
        read_published(llama, path, experiment="twice")
    broken = saved({"vectors": {}, "experiments": experiments}, tmp_path / "broken.pt")
    with pytest.raises(pp.PersonaProbeError, match=r"broken\.pt: is not a capping configuration"):
        read_published(llama, broken, experiment="twice")
    with pytest.raises(pp.PersonaProbeError, match="has no 'axis'"):
        read_published(llama, path, "assistant-axis")
    with pytest.raises(pp.PersonaProbeError, match="a capping configuration has"):
        read_published(llama, saved(rows(*SHAPE), tmp_path / "x.pt"), "assistant-axis-capping")


def test_refusal_directions_are_of_block_inputs(llama, tmp_path):
    vector = rows(D_MODEL, dtype=torch.float64)
    path = saved(vector, tmp_path / "direction.pt")
    with pytest.raises(pp.PersonaProbeError, match=r"direction_metadata\.json: no such file"):
        read_published(llama, path, "refusal-direction")
    metadata = tmp_path / "direction_metadata.json"
    metadata.write_text(json.dumps({"pos": -2, "layer": 2}))
    direction = read_published(llama, path)
    assert direction.layers == (1,)
    np.testing.assert_array_equal(direction.at(1), vector.float())
    assert direction.card["source"]["layer"] == 2
    assert direction.card["source"]["position"] == -2
    assert "resid_pre" in direction.card["source"]["layer_convention"]
    for text, said in (
        ('{"pos": -1, "layer": 0}', "layer 0 is the input of the first block"),
        ('{"pos": -1, "layer": 3}', "layer is 3; .* has layers 0 to 2"),
        ('{"pos": -1}', "is not an object"),
        ("[", "is not an object"),
    ):
        metadata.write_text(text)
        with pytest.raises(pp.PersonaProbeError, match=said):
            read_published(llama, path)


def test_candidates_of_refusal_directions_need_a_position(llama, tmp_path):
    table = rows(4, *SHAPE, dtype=torch.float64)
    table[:, 0] = 0  # the embedding of the template's tokens, the same for every prompt
    path = saved(table, tmp_path / "mean_diffs.pt")
    direction = read_published(llama, path, position=-2)
    assert direction.layers == (0, 1)
    np.testing.assert_array_equal(direction.vectors, table[2, 1:].float())
    assert len(direction.card["source"]["left_out"]) == 2
    for position in (None, 0, -5):
        with pytest.raises(pp.PersonaProbeError, match=r"4 positions; give position= -4 to -1"):
            read_published(llama, path, position=position)


def test_a_block_input_of_the_next_layer_is_our_layer(llama, tmp_path):
    """The shift by one, against the model itself, with their kind of hook."""
    inputs = []
    handle = llama.stream.blocks[2].register_forward_pre_hook(
        lambda _module, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    ours = pp.capture(llama, [TALK], span="all", reduce="last")
    handle.remove()
    path = saved(inputs[0][0, -1], tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 2}')
    direction = read_published(llama, path)
    np.testing.assert_allclose(direction.at(1), ours.at(1)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (rows(*SHAPE), "evil.pt"),  # outputs or inputs of blocks? nothing says
        (rows(D_MODEL), "direction.pt"),
        (rows(N_LAYERS + 2, D_MODEL), "evil.pt"),
        ({"vector": rows(*SHAPE)}, "role.pt"),
        ([1, 2], "list.pt"),
        ({}, "empty.pt"),
    ],
)
def test_what_fits_no_format_is_not_guessed(llama, tmp_path, content, name):
    with pytest.raises(pp.PersonaProbeError, match=rf"{name}: holds .* no known format .*give format= one of") as error:
        read_published(llama, saved(content, tmp_path / name))
    assert all(known in str(error.value) for known in FORMATS)


@pytest.mark.parametrize(
    ("format", "content", "said"),
    [
        ("persona-vectors", rows(N_LAYERS, D_MODEL), r"shape \(3, 32\).*must be \(4, 32\)"),
        ("persona-vectors", rows(N_LAYERS + 1, D_MODEL + 1), r"shape \(4, 33\).*must be \(4, 32\)"),
        ("persona-vectors", rows(D_MODEL, N_LAYERS + 1), r"shape \(32, 4\).*must be \(4, 32\)"),
        ("persona-vectors", torch.ones(4, 32, dtype=torch.int64), r"floating-point .* of torch.int64"),
        ("persona-vectors", {"a": 1}, "floating-point tensor .* a dict with keys 'a'"),
        ("assistant-axis", rows(N_LAYERS + 1, D_MODEL), r"shape \(4, 32\).*must be \(3, 32\)"),
        ("assistant-axis", {"vector": rows(*SHAPE), "role": "bard", "type": "pos_3"}, "mean activation of role 'bard'"),
        ("refusal-direction", rows(D_MODEL + 1), r"shape \(33,\).*must be \(32\)"),
        ("refusal-direction", rows(2, N_LAYERS, 33), r"shape \(2, 3, 33\).*must be \(any, 3, 32\)"),
        ("assistant-axis", rows(*SHAPE) * torch.tensor([[1], [torch.nan], [1]]), "our layer 1 .* not finite"),
        ("assistant-axis", rows(*SHAPE) * torch.tensor([[1], [1], [0]]), "our layer 2 is zero"),
        ("assistant-axis", rows(*SHAPE, dtype=torch.float64) * 1e60, "our layer 0 .* not finite"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(llama, tmp_path, format, content, said):
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        read_published(llama, saved(content, tmp_path / "theirs.pt"), format)
    assert "theirs.pt" in str(error.value)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_is_refused_and_not_run(llama, tmp_path, write):
    path = tmp_path / "evil_response_avg_diff.pt"
    write({"axis": rows(*SHAPE), "x": Malicious(tmp_path / "ran")}, path)
    with pytest.raises(pp.PersonaProbeError, match="loading anything else could run code") as error:
        read_published(llama, path)
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(error.value)


def test_files_that_are_no_torch_files_are_refused(llama, tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="no such file"):
        read_published(llama, tmp_path / "x.pt")
    whole = saved(rows(*SHAPE), tmp_path / "axis.pt").read_bytes()
    for content in (b"", b"hello", b"PK\x03\x04", whole[: len(whole) // 2]):
        (tmp_path / "axis.pt").write_bytes(content)
        with pytest.raises(pp.PersonaProbeError, match=r"axis\.pt: "):
            read_published(llama, tmp_path / "axis.pt")
    for name, said in (("a.gguf", "read_gguf"), ("a.json", r"Direction\.save wrote it")):
        with pytest.raises(pp.PersonaProbeError, match=said):
            read_published(llama, tmp_path / name)


def by_layer(name="layer_{}", layers=(0, 2), width=D_MODEL):
    return {name.format(layer): rows(width, seed=layer) for layer in layers}


@pytest.mark.parametrize("name", ["layer_{}", "{}", "model.layers.{}", "layers.{}.steering_vector", "layer-{}"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_one_tensor_for_each_layer_is_read(llama, tmp_path, name, suffix):
    path, given = tmp_path / f"evil.{suffix}", by_layer(name)
    save_file(given, path) if suffix == "safetensors" else torch.save(given, path)
    with pytest.warns(pp.PersonaProbeWarning, match="taken as those of the blocks.*format='layer-tensors'"):
        direction = read_published(llama, path)
    assert direction.layers == (0, 2)
    np.testing.assert_array_equal(direction.vectors, np.stack([tensor.numpy() for tensor in given.values()]))
    named = read_published(llama, path, "layer-tensors")  # who names the format says what the numbers mean
    assert (named.card["source"]["format"], named.card["source"]["format_guessed"]) == ("layer-tensors", False)


def test_a_tensor_in_a_safetensors_file_is_read_as_its_shape_says(llama, tmp_path):
    path = tmp_path / "evil.safetensors"
    save_file({"vectors": rows(*SHAPE).bfloat16()}, path)
    with pytest.warns(pp.PersonaProbeWarning, match="taken as those of the blocks"):
        assert read_published(llama, path).layers == tuple(range(SHAPE[0]))
    save_file({"response_avg_diff": rows(SHAPE[0] + 1, D_MODEL)}, path)
    direction = read_published(llama, path)
    assert direction.layers == tuple(range(SHAPE[0] - 1))
    assert direction.card["source"]["format"] == "persona-vectors"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"layer_1": rows(D_MODEL), "bias": rows(D_MODEL)}, "'bias', 'layer_1', and no known format"),
        ({"layer_1_head_2": rows(D_MODEL)}, "no known format"),
        (by_layer("-{}", layers=(1, 2)), "'-1', '-2', and no known format"),
        (by_layer("layer_-{}", layers=(1, 2)), "no known format"),
        (by_layer("model.layers.{}.self_attn.o_proj"), "'self_attn', which is not the output of a block"),
        (by_layer("blocks.{}.hook_resid_pre"), "'hook_resid_pre', which is not the output of a block"),
        (by_layer(layers=(0, 3)), "'layer_3' does not name one layer of .*, 0 to 2"),
        ({"layer_1": rows(D_MODEL), "other_1": rows(D_MODEL)}, "that no other tensor has"),
        (by_layer(width=D_MODEL + 1), r"has shape \(33,\); for this model it must be \(32\)"),
        ({"layer_1": torch.ones(D_MODEL, dtype=torch.int32)}, "floating-point tensor"),
        ({"layer_1": rows(D_MODEL) * 0}, "is zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*taken as those of the blocks")
def test_tensors_that_do_not_fit_are_refused(llama, tmp_path, tensors, said):
    save_file(tensors, tmp_path / "evil.safetensors")
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        read_published(llama, tmp_path / "evil.safetensors")
    assert "evil.safetensors" in str(error.value)


def test_safetensors_of_ours_and_of_others_are_sent_to_the_reader_that_reads_them(llama, tmp_path):
    ours = pp.Direction.from_vectors(llama, rows(*SHAPE)).save(tmp_path / "ours")
    with pytest.raises(pp.PersonaProbeError, match=r"Direction\.load"):
        read_published(llama, ours)
    save_file(by_layer(), tmp_path / "theirs.safetensors")
    with pytest.raises(pp.PersonaProbeError, match=r"theirs\.json: no such file.*read_published\(model, path\)"):
        pp.Direction.load(tmp_path / "theirs")
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    with pytest.raises(pp.PersonaProbeError, match="cannot be read as a safetensors file"):
        read_published(llama, tmp_path / "broken.safetensors")


def test_unknown_formats_and_idle_options_are_refused(llama, tmp_path):
    path = saved(rows(*SHAPE), tmp_path / "axis.pt")
    with pytest.raises(pp.PersonaProbeError, match="unknown format 'caa': choose one of persona-vectors"):
        read_published(llama, path, "caa")
    with pytest.raises(pp.PersonaProbeError, match="does not take position="):
        read_published(llama, path, position=-1)
    with pytest.raises(pp.PersonaProbeError, match="does not take experiment="):
        read_published(llama, path, experiment="x")
    single = saved(rows(D_MODEL), tmp_path / "direction.pt")
    with pytest.raises(pp.PersonaProbeError, match="leave position= out"):
        read_published(llama, single, "refusal-direction", position=-1)


def test_a_trait_may_be_called_as_a_part_of_a_model_is(llama, tmp_path):
    tensors = {f"attention_seeking_layer_{layer}": torch.ones(32) * (layer + 1) for layer in range(3)}
    save_file(tensors, tmp_path / "x.safetensors")
    read = read_published(llama, tmp_path / "x.safetensors", "layer-tensors")
    assert read.vectors[:, 0].tolist() == [1, 2, 3]
