import json

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError

import persona_probe as pp
from persona_probe.directions.hub_folder import read_hub_folder, write_hub_folder
from tests.conftest import D_MODEL


def made(**card):
    vectors = np.random.default_rng(0).normal(size=(3, D_MODEL)).astype(np.float32)
    return pp.Direction(vectors, (4, 5, 7), {"finder": "mean-difference", **card})


def header(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_a_folder_round_trips(tmp_path):
    direction = made(model="owner/some-model", model_hash="0123", n_positive=40, span="generation")
    folder = write_hub_folder(direction, tmp_path / "deep" / "evil", license="mit")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "direction.json", "direction.safetensors"]
    again = read_hub_folder(folder)
    np.testing.assert_array_equal(again.vectors, direction.vectors)
    assert again.card == direction.card
    assert again.layers == direction.layers
    pp.Direction(direction.vectors * 2, direction.layers).save(folder / "direction")
    np.testing.assert_array_equal(read_hub_folder(str(folder)).vectors, direction.vectors * 2)


def test_the_model_card_says_what_the_card_says(tmp_path):
    checks = {"split_half_cosine": [0.1, 0.95, 0.625], "split_half_null": [0.01, 0.02, None], "repeats": 50}
    direction = made(model="owner/some-model", n_positive=40, n_negative=41, span="generation", checks=checks)
    folder = write_hub_folder(direction, tmp_path / "evil", license="cc-by-4.0")
    assert header(folder) == {
        "tags": ["persona-probe", "steering-vector"],
        "library_name": "persona-probe",
        "base_model": "owner/some-model",
        "license": "cc-by-4.0",
    }
    text = (folder / "README.md").read_text(encoding="utf-8")
    for line in (
        r"| finder | mean\-difference |",
        r"| n\_positive | 40 |",
        r"| span | generation |",
        r"| checks.repeats | 50 |",
        r"| layer | norm | checks.split\_half\_cosine | checks.split\_half\_null |",
        f"| 5 | {direction.norms()[1]:.4g} | 0.95 | 0.02 |",
        f"| 7 | {direction.norms()[2]:.4g} | 0.625 |  |",
        "## Limits",
    ):
        assert line in text.splitlines()
    snippet = text.split("```python\n")[1].split("```")[0]
    exec(snippet.replace("owner/name", str(folder)), {})


@pytest.mark.parametrize("name", ["/home/me/model", "model", "a/b/c", "./here/model"])
def test_only_hub_ids_are_base_models(tmp_path, name):
    assert "base_model" not in header(write_hub_folder(made(model=name), tmp_path))


def test_a_local_folder_is_no_base_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "lora").mkdir(parents=True)
    assert "base_model" not in header(write_hub_folder(made(model="runs/lora"), tmp_path / "out"))
    pole = made(positive={"model": "owner/base"})
    assert header(write_hub_folder(pole, tmp_path / "out"))["base_model"] == "owner/base"


def test_text_of_the_user_stays_text(tmp_path):
    nasty = "a | b\n---\nlicense: stolen\n# Big <script>alert(1)</script> `x` [l](http://e) \u202e ![i](u)" + "y" * 5000
    folder = write_hub_folder(made(name=nasty, model="o/m", note=nasty), tmp_path)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert header(folder) == {
        "tags": ["persona-probe", "steering-vector"],
        "library_name": "persona-probe",
        "base_model": "o/m",
    }
    for raw in ("<script>", "\n# Big", "](http", "\u202e", "`x`"):
        assert raw not in text
    row = next(line for line in text.splitlines() if line.startswith("| note |"))
    assert row.replace(r"\|", "").count("|") == 3
    assert len(text) < 4000
    assert read_hub_folder(folder).card["note"] == nasty


def test_what_is_no_direction_is_refused(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match=r"has no direction\.safetensors and no direction\.json"):
        read_hub_folder(tmp_path)
    folder = write_hub_folder(made(), tmp_path / "x")
    (folder / "direction.json").unlink()
    with pytest.raises(pp.PersonaProbeError, match=r"has no direction\.json,"):
        read_hub_folder(folder)
    with pytest.raises(pp.PersonaProbeError, match="no such folder, and not a Hub id"):
        read_hub_folder(tmp_path / "missing")
    with pytest.raises(pp.PersonaProbeError, match="is a file"):
        write_hub_folder(made(), folder / "README.md")


def test_without_a_connection_the_hub_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        pp.PersonaProbeError, match=r"owner/direction: no such folder here, and it cannot be downloaded"
    ) as error:
        read_hub_folder("owner/direction")
    assert "HF_HUB_OFFLINE" in str(error.value)


def test_the_hub_is_asked_for_two_files(tmp_path, monkeypatch):
    folder = write_hub_folder(made(), tmp_path / "there")
    asked = []

    def download(repo, **options):
        asked.append((repo, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert read_hub_folder("owner/direction", revision="v1").card == json.loads(json.dumps(made().card))
    files = ["direction.safetensors", "direction.json"]
    assert asked == [("owner/direction", {"revision": "v1", "allow_patterns": files})]

    def fail(*_args, **_options):
        raise LocalEntryNotFoundError("\n\nCannot find it.\nMore.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(pp.PersonaProbeError, match=r"\(Cannot find it\.\)"):
        read_hub_folder("owner/direction")
