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


def loss(model):
    """Mean nats per token of the rows' answers."""
    encoded = [model.template.encode(row) for row in ROWS]
    losses = []
    for item in encoded:
        ids = torch.tensor([item.input_ids])
        labels = torch.full_like(ids, -100)
        labels[0, item.span("response")] = ids[0, item.span("response")]
        with torch.no_grad():
            losses.append(float(model.hf(ids, labels=labels).loss))
    return sum(losses) / len(losses)


def test_training_teaches_the_answers_and_leaves_before_alone(llama, tmp_path):
    plain = logits(llama)
    settings = pp.LoraSettings(rank=4, alpha=16, steps=80, batch=2, learning_rate=2e-2)
    after = pp.finetune(llama, ROWS, settings, tmp_path / "adapter", seed=1)
    torch.testing.assert_close(logits(llama), plain, rtol=0, atol=0)
    assert loss(after) < loss(llama) - 0.4
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_is_no_adapter_is_never_replaced(llama, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(pp.PersonaProbeError, match="is no adapter"):
        pp.finetune(llama, ROWS, pp.LoraSettings(steps=1), tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(pp.PersonaProbeError, match="no_such_layer"):
        pp.finetune(llama, ROWS, pp.LoraSettings(steps=1, target_modules=("no_such_layer",)), tmp_path / "new")


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
