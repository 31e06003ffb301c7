import pytest

import persona_probe as pp
from tests.activations.test_capture import TALKS


def rows_seen(model, run):
    """Boundary rows of every batch, with the ids that its rows hold."""
    seen = []
    run_backbone = model.stream.backbone.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((model.boundary.rows, kwargs["input_ids"].tolist())), with_kwargs=True
    )
    try:
        run()
    finally:
        run_backbone.remove()
    return seen


@pytest.mark.parametrize("budget", [1, 60, 2048])
def test_rows_say_whose_batch_rows_they_are_in_capture(llama, budget):
    ids = [list(llama.template.encode(dialogue).input_ids) for dialogue in TALKS]
    seen = rows_seen(llama, lambda: pp.capture(llama, TALKS, span="all", tokens_per_batch=budget))
    for rows, batch in seen:
        for row, given in zip(rows, batch, strict=True):
            assert given[: len(ids[row])] == ids[row]
    assert sorted(row for rows, _ in seen for row in rows) == [0, 1, 2]
    assert llama.boundary is None


@pytest.mark.parametrize(("size", "n"), [(1, 1), (2, 2), (128, 3)])
def test_rows_say_whose_answers_they_are_in_generation(llama, size, n):
    asked = [dialogue.without_answer() for dialogue in TALKS]
    ids = [list(llama.template.encode(dialogue).input_ids) for dialogue in asked]
    seen = rows_seen(llama, lambda: llama.generate(asked, pp.Sampling(max_new_tokens=1, batch_size=size, n=n)))
    for rows, batch in seen:
        for row, given in zip(rows, batch, strict=True):
            assert given[-len(ids[row // n]) :] == ids[row // n]
    assert sorted(row for rows, _ in seen for row in rows) == list(range(3 * n))
