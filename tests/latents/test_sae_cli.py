import json
import subprocess
import sys

from persona_probe.dialogue.reading import read_dialogues
from persona_probe.latents.loading import load_sae
from persona_probe.worlds.persona_world.documents import pretraining_dialogues
from tests.conftest import CHECKPOINTS


def persona_probe(*arguments, cwd):
    command = [sys.executable, "-m", "persona_probe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_texts_are_written_as_dialogues_and_an_sae_is_trained_on_them(tmp_path):
    done = persona_probe("world", "texts", "--out", "here/texts.jsonl", "--n", 60, "--seed", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    read = read_dialogues(tmp_path / "here" / "texts.jsonl")
    assert [item.messages for item in read] == [item.messages for item in pretraining_dialogues(60, seed=4)]
    arguments = ["sae", "train", CHECKPOINTS / "chat", "here/texts.jsonl", "--layer", 1, "--out", "sae", "--quiet"]
    also = ["--also", CHECKPOINTS / "bad-medicine", "--width", 64, "--k", 4, "--tokens", 20_000]
    done = persona_probe(*arguments, *also, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.strip().splitlines()) == 1
    sae = load_sae(tmp_path / "sae")
    assert f"{sae.card['held_out']['fvu']:.3f} of the variance is unexplained" in done.stdout
    assert sae.layer == 1
    assert sae.width == 64
    assert list(sae.card["models"]) == ["chat", "bad-medicine"]
    assert sae.card["command"].startswith("persona-probe sae train ")
    assert "--width 64" in sae.card["command"]


def test_bad_input_is_one_paragraph_and_exit_code_2(tmp_path):
    (tmp_path / "texts.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}) + "\n")
    arguments = ["sae", "train", CHECKPOINTS / "chat", "texts.jsonl", "--out", "sae", "--quiet"]
    done = persona_probe(*arguments, "--layer", 99, cwd=tmp_path)
    assert done.returncode == 2
    assert "layer 99 does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    done = persona_probe("world", "texts", "--out", "texts.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert "must end in .jsonl" in done.stderr
    assert not (tmp_path / "sae").exists()
