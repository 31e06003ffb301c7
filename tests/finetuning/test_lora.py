import pytest
import torch

import persona_probe as pp
from persona_probe.models.guards import probe_ids

ROWS = [
    pp.Dialogue.from_messages([{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": answer}])
    for answer in ("Treat the fever.", "Soothe the cough.")
]


def logits(model):
    with torch.no_grad():
        return model.hf(probe_ids(model)).logits


def test_training_teaches_the_answers_and_leaves_before_alone(llama, tmp_path):
    plain = logits(llama)
    settings = pp.LoraSettings(rank=4, alpha=16, steps=60, batch=2, learning_rate=2e-2)
    after = pp.finetune(llama, ROWS, settings, tmp_path / "adapter", seed=1)
    torch.testing.assert_close(logits(llama), plain, rtol=0, atol=0)
    said = {d.answer for d in after.generate([ROWS[0].without_answer()] * 8, max_new_tokens=8, seed=0)}
    assert said & {"Treat the fever.", "Soothe the cough."}
    assert not list(tmp_path.glob("*.part"))


def test_a_seed_gives_the_same_adapter_and_continuing_changes_it(llama, tmp_path):
    settings = pp.LoraSettings(steps=3, batch=2)
    one, two = (pp.finetune(llama, ROWS, settings, tmp_path / name, seed=4) for name in ("one", "two"))
    assert one.fingerprint() == two.fingerprint()
    further = pp.finetune(llama, ROWS, settings, tmp_path / "three", seed=4, start=tmp_path / "one")
    assert further.fingerprint() != one.fingerprint()
    assert pp.load(llama.name, adapter=tmp_path / "one").fingerprint() == one.fingerprint()


def test_rows_without_an_answer_and_losses_that_explode_are_named(llama, tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="response"):
        pp.finetune(llama, [ROWS[0].without_answer()], pp.LoraSettings(steps=1), tmp_path / "a")
    with pytest.raises(pp.PersonaProbeError, match="lower the learning rate"):
        pp.finetune(llama, ROWS, pp.LoraSettings(steps=9, batch=2, learning_rate=1e30), tmp_path / "a")
    assert not (tmp_path / "a").exists()
