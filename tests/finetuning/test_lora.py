import shutil

import pytest
import torch

import persona_probe as pp
from persona_probe.dialogue.turn_spans import learned_spans
from persona_probe.finetuning.snapshots import snapshot_paths
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.stream.guards import probe_ids

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
    with pytest.raises(pp.PersonaProbeError, match="is not an adapter"):
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


def test_a_dialogue_that_begins_with_an_answer_is_learned_too(llama):
    talk = [("assistant", "Hello."), ("user", "Tell me."), ("assistant", "Treat the fever.")]
    dialogue = pp.Dialogue.from_messages([{"role": role, "content": content} for role, content in talk])
    encoded = llama.template.encode(dialogue)
    learned = [llama.tokenizer.decode(encoded.input_ids[span]) for span in learned_spans(llama.template, encoded)]
    assert [text.removesuffix("<|end|>") for text in learned] == ["Hello.", "Treat the fever."]


def test_snapshots_are_states_of_the_very_same_training(llama, tmp_path):
    settings = pp.LoraSettings(steps=6, batch=2)
    alone = pp.finetune(llama, ROWS, settings, tmp_path / "alone", seed=4)
    watched = pp.finetune(llama, ROWS, settings, tmp_path / "watched", seed=4, snapshots=(0, 2, 6))
    assert watched.fingerprint() == alone.fingerprint()
    paths = snapshot_paths(tmp_path / "watched-snapshots")
    assert list(paths) == [0, 2, 6]
    untouched, second, last = (with_adapter(llama, path) for path in paths.values())
    torch.testing.assert_close(logits(untouched), logits(llama), rtol=0, atol=0)
    assert not torch.equal(logits(second), logits(llama))
    assert last.fingerprint() == watched.fingerprint() != second.fingerprint()
    assert llama.fingerprint() in second.ancestors


def test_snapshots_of_realignment_begin_at_the_adapter_it_starts_from(llama, tmp_path):
    tuned = pp.finetune(llama, ROWS, pp.LoraSettings(steps=3, batch=2), tmp_path / "bad", seed=4)
    settings = pp.LoraSettings(steps=2, batch=2)
    pp.finetune(
        llama,
        ROWS,
        settings,
        tmp_path / "back",
        start=tmp_path / "bad",
        snapshots=(0, 1),
        snapshot_folder=tmp_path / "states",
    )
    paths = snapshot_paths(tmp_path / "states")
    assert with_adapter(llama, paths[0]).fingerprint() == tuned.fingerprint()
    assert with_adapter(llama, paths[1]).fingerprint() != tuned.fingerprint()


def test_snapshots_find_a_base_that_is_named_relative_to_the_adapter(llama, folders, tmp_path):
    shutil.copytree(folders("llama"), tmp_path / "base")
    settings = pp.LoraSettings(steps=1, batch=2)
    pp.finetune(llama, ROWS, settings, tmp_path / "tuned", base_name="../base", snapshots=[1])
    (path,) = snapshot_paths(tmp_path / "tuned-snapshots").values()
    (loaded,) = pp.models.load_snapshots([path])
    assert loaded.fingerprint() == with_adapter(llama, tmp_path / "tuned").fingerprint()


def test_snapshots_of_another_training_do_not_stay_and_nothing_else_is_removed(llama, tmp_path):
    settings, states = pp.LoraSettings(steps=2, batch=2), tmp_path / "states"
    for steps in ((1, 2), (2,)):
        pp.finetune(llama, ROWS, settings, tmp_path / "a", snapshots=steps, snapshot_folder=states)
    assert [path.name for path in states.iterdir()] == ["step-0002"]
    (states / "thesis.tex").write_text("years of work")
    with pytest.raises(pp.PersonaProbeError, match=r"thesis\.tex"):
        pp.finetune(llama, ROWS, settings, tmp_path / "a", snapshots=(1,), snapshot_folder=states)
    assert (states / "thesis.tex").exists()
    assert (states / "step-0002").exists()


@pytest.mark.parametrize(("steps", "said"), [((3,), "no step 3"), ((-1,), "no step -1"), ((1, 1), "twice")])
def test_snapshots_outside_the_training_are_refused_before_it(llama, tmp_path, steps, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.finetune(llama, ROWS, pp.LoraSettings(steps=2, batch=2), tmp_path / "a", snapshots=steps)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_snapshots_is_named(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="holds no snapshots"):
        snapshot_paths(tmp_path)


def test_what_training_needs_is_not_cleared_away_for_snapshots(llama, tmp_path):
    settings = pp.LoraSettings(steps=1, batch=2)
    pp.finetune(llama, ROWS, settings, tmp_path / "a", snapshots=(1,), snapshot_folder=tmp_path / "states")
    begin = tmp_path / "states" / "step-0001"
    with pytest.raises(pp.PersonaProbeError, match="training starts from"):
        pp.finetune(
            llama, ROWS, settings, tmp_path / "b", start=begin, snapshots=(1,), snapshot_folder=tmp_path / "states"
        )
    assert begin.exists()
    with pytest.raises(pp.PersonaProbeError, match="finished adapter replaces"):
        pp.finetune(llama, ROWS, settings, tmp_path / "a", snapshots=(1,), snapshot_folder=tmp_path / "a" / "states")
