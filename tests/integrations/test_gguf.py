import sys

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.integrations.gguf import read_gguf, write_gguf
from tests.conftest import D_MODEL, N_LAYERS

gguf = pytest.importorskip("gguf")
LAST = N_LAYERS - 1


def vector(seed=0, width=D_MODEL):
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


def written(path, tensors, arch="controlvector", hint="llama", signed=False, more=()):
    """As repeng and (``signed``) llama.cpp's cvector-generator write: nothing about the numbering."""
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_string("controlvector.model_hint", hint)
    (writer.add_int32 if signed else writer.add_uint32)("controlvector.layer_count", len(tensors))
    for kind, name, value in more:
        getattr(writer, f"add_{kind}")(name, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_written_is_read_back_as_it_was(llama, tmp_path):
    direction = pp.Direction.from_vectors(llama, np.stack([vector(n) for n in range(N_LAYERS)]))
    path = write_gguf(direction, tmp_path / "deep" / "evil.gguf", model_hint="llama", layers=(1, LAST))
    assert not list(tmp_path.rglob("*.part"))
    again = read_gguf(llama, path, written_by="cvector-generator")  # the file knows better
    assert again.layers == (1, LAST)
    np.testing.assert_array_equal(again.vectors, direction.vectors[1:])
    source = again.card["source"]
    assert (source["format"], source["written_by"], source["model_hint"]) == ("gguf", "persona-probe", "llama")
    assert again.card == {**direction.card, "source": source}
    again.check_model(llama)
    assert again.card["model_hash"] == llama.fingerprint()
    assert again.card["finder"] == "given"


def test_a_file_of_ours_stays_with_its_model(llama, folders, tmp_path):
    """The card that goes along says whose direction it is; the reader cannot make it another model's."""
    direction = pp.Direction.from_vectors(llama, np.stack([vector(n) for n in range(N_LAYERS)]))
    path = write_gguf(direction, tmp_path / "evil.gguf", model_hint="llama", layers=(1,))
    other = pp.load(folders("qwen2"))
    with pytest.raises(pp.PersonaProbeError, match="not known to be made from"):
        read_gguf(other, path)
    with pytest.warns(pp.PersonaProbeWarning, match=llama.fingerprint()):
        assert read_gguf(other, path, allow_unrelated=True).layers == (1,)


def test_files_are_what_llama_cpp_asks_for(llama, tmp_path):
    """F32, one dimension, direction.NUMBER above 0, and no other tensor (common_control_vector_load_one)."""
    direction = pp.Direction(np.stack([vector(1), vector(2)]), (1, 2))
    reader = gguf.GGUFReader(str(write_gguf(direction, tmp_path / "x.gguf", model_hint="qwen2")))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "qwen2"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2"]
    for tensor, values in zip(reader.tensors, direction.vectors, strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert list(tensor.shape) == [D_MODEL]
        np.testing.assert_array_equal(tensor.data, values)


def test_an_addition_is_written_at_its_strength_and_layers(llama, tmp_path):
    direction = pp.Direction.from_vectors(llama, np.random.default_rng(0).normal(size=(3, 32)))
    file = pp.integrations.write_gguf(
        pp.Add(direction, 2, strength=-1.5, scope="all"), tmp_path / "a.gguf", model_hint="llama"
    )
    read = pp.integrations.read_gguf(llama, file)
    assert read.layers == (2,)
    np.testing.assert_allclose(read.at(2), -1.5 * direction.at(2), rtol=1e-6)
    with pytest.raises(pp.PersonaProbeError, match=r"adds at every token.*'generation'"):
        pp.integrations.write_gguf(pp.Add(direction, 2), tmp_path / "b.gguf", model_hint="llama")


def test_layer_0_cannot_be_written(llama, tmp_path):
    direction = pp.Direction.from_vectors(llama, np.stack([vector(n) for n in range(N_LAYERS)]))
    with pytest.raises(pp.PersonaProbeError, match=r"llama.cpp refuses .* layer 0; leave it out, with layers=\[1, 2\]"):
        write_gguf(direction, tmp_path / "x.gguf", model_hint="llama")
    with pytest.raises(pp.PersonaProbeError, match="has no layer 9"):
        write_gguf(direction, tmp_path / "x.gguf", model_hint="llama", layers=[9])
    for layers, said in (([], "at least one layer"), ([1, 1], "each once")):
        with pytest.raises(pp.PersonaProbeError, match=said):
            write_gguf(direction, tmp_path / "x.gguf", model_hint="llama", layers=layers)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("written_by", "layers", "left_out"),
    [
        ("repeng", (1,), "direction.2: measured after the final norm"),
        ("cvector-generator", (0, 1), None),
        ("other", (1, 2), None),
    ],
)
def test_numbers_mean_what_their_writer_meant(llama, tmp_path, written_by, layers, left_out):
    path = written(tmp_path / "x.gguf", {"direction.2": vector(2), "direction.1": vector(1)})
    direction = read_gguf(llama, path, written_by=written_by)
    assert direction.layers == layers
    np.testing.assert_array_equal(direction.vectors[0], vector(1))
    source = direction.card["source"]
    assert source["written_by"] == written_by
    assert "direction.k" in source["layer_convention"]
    assert [line[: len(left_out)] for line in source["left_out"]] == ([left_out] if left_out else [])


def three(path, **more):
    return written(path, {f"direction.{n}": vector(n) for n in range(1, N_LAYERS)}, **more)


EASYSTEER = (
    ("string", "controlvector.method", "diffmean"),
    ("float32", "controlvector.normalize", 1.0),
    ("string", "controlvector.token_pos", "last"),
    ("array", "controlvector.window", [1, 2]),
    ("string", "controlvector.file", "rows.json"),
    ("string", "general.description", "evil"),
)


def test_who_wrote_a_file_is_found_from_its_metadata(llama, tmp_path):
    path = tmp_path / "x.gguf"
    with pytest.warns(pp.PersonaProbeWarning, match=r"read as one of repeng.*left out: direction\.2.*written_by="):
        assert read_gguf(llama, three(path)).layers == (1,)
    with pytest.warns(pp.PersonaProbeWarning, match="read as one of cvector-generator.*written_by="):
        assert read_gguf(llama, three(path, signed=True)).layers == (0, 1)
    one = written(path, {"direction.2": vector()}, signed=True)  # a script that adds one layer
    assert read_gguf(llama, one).layers == (2,)
    every = {f"direction.{n}": vector(n) for n in range(N_LAYERS)}
    theirs = read_gguf(llama, written(path, every, more=EASYSTEER))
    assert theirs.layers == (0, 1, 2)
    assert theirs.card["source"]["written_by"] == "other"
    assert theirs.card["source"]["written_by_guessed"]
    named = read_gguf(llama, written(path, every, more=EASYSTEER), written_by="repeng")
    assert named.layers == (0, 1)
    assert not named.card["source"]["written_by_guessed"]


def test_a_files_metadata_is_on_the_card(llama, tmp_path):
    path = three(tmp_path / "x.gguf", more=EASYSTEER)
    source = pp.Direction.load(read_gguf(llama, path).save(tmp_path / "saved")).card["source"]
    assert (source["method"], source["normalize"], source["token_pos"], source["window"]) == (
        ("diffmean", 1.0, "last", [1, 2])
    )
    assert (source["controlvector.file"], source["file"]) == ("rows.json", "x.gguf")
    assert (source["general.description"], source["layer_count"]) == ("evil", 2)
    assert not any(name.startswith("GGUF") for name in source)


@pytest.mark.parametrize("component", ["attention_heads", "router_logits"])
def test_vectors_of_another_place_are_refused(llama, tmp_path, component):
    path = three(tmp_path / "x.gguf", more=[("string", "controlvector.component", component)])
    with pytest.raises(pp.PersonaProbeError, match=f"measured at {component}.*not in the residual stream"):
        read_gguf(llama, path)


def test_half_and_double_precision_are_read_and_zeros_left_out(llama, tmp_path):
    tensors = {"direction.0": vector(0).astype(np.float16), "direction.1": np.zeros(D_MODEL, np.float32)}
    tensors["direction.2"] = vector(2).astype(np.float64)
    direction = read_gguf(llama, written(tmp_path / "x.gguf", tensors), written_by="other")
    assert direction.layers == (0, 2)
    assert direction.vectors.dtype == np.float32
    assert direction.card["source"]["left_out"] == ["direction.1: zero"]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"direction.3": vector()}, r"direction\.3 would be our layer 3; .* has layers 0 to 2"),
        ({"direction.1": vector(width=D_MODEL + 1)}, r"direction\.1 has shape \(33,\); .* needs \(32,\)"),
        ({"direction.1": np.ones((2, D_MODEL), np.float32)}, r"shape \(2, 32\)"),
        ({"direction.1": vector() * np.nan}, "our layer 1 holds values that are not finite"),
        ({"blk.1": vector()}, r"'blk\.1' is not called direction\.NUMBER"),
        ({"direction.-1": vector()}, "is not called"),
        ({"direction.1": vector(), "direction.01": vector()}, "or occurs twice"),
        ({"direction.1": np.ones(D_MODEL, np.int32)}, r"direction\.1 is of type I32"),
        ({"direction.2": vector()}, "no layer is left of 1: direction.2: measured after"),
    ],
)
def test_what_does_not_fit_is_refused(llama, tmp_path, tensors, said):
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        read_gguf(llama, written(tmp_path / "theirs.gguf", tensors))
    assert "theirs.gguf" in str(error.value)


def test_files_that_are_no_control_vectors_are_refused(llama, tmp_path):
    model = written(tmp_path / "model.gguf", {"direction.1": vector()}, arch="llama")
    with pytest.raises(pp.PersonaProbeError, match="architecture is 'llama'; a control vector's is 'controlvector'"):
        read_gguf(llama, model)
    with pytest.raises(pp.PersonaProbeError, match="no such file"):
        read_gguf(llama, tmp_path / "missing.gguf")
    whole = written(tmp_path / "x.gguf", {"direction.1": vector()}).read_bytes()
    for content in (b"", b"hello, I am text", whole[:40], whole[: len(whole) // 2], whole[:-8]):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(pp.PersonaProbeError, match=r"x\.gguf: cannot be read as a GGUF file"):
            read_gguf(llama, tmp_path / "x.gguf")
    with pytest.raises(pp.PersonaProbeError, match="unknown written_by 'me'"):
        read_gguf(llama, model, written_by="me")


@pytest.mark.parametrize("card", ["{", "[1]"])
def test_a_broken_card_is_refused(llama, tmp_path, card):
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "controlvector")
    writer.add_string("persona_probe.card", card)
    writer.add_tensor("direction.1", vector())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(pp.PersonaProbeError, match=r"x\.gguf: its persona_probe\.card is no"):
        read_gguf(llama, tmp_path / "x.gguf")


def test_without_the_package_it_says_how_to_get_it(llama, tmp_path, monkeypatch):
    path = written(tmp_path / "x.gguf", {"direction.1": vector()})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(pp.PersonaProbeError, match=r"pip install 'persona-probe\[gguf\]'"):
        read_gguf(llama, path)
    with pytest.raises(pp.PersonaProbeError, match=r"pip install 'persona-probe\[gguf\]'"):
        write_gguf(pp.Direction(vector()[None], (1,)), path, model_hint="llama")
