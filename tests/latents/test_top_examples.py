import numpy as np
import pytest
import torch

from persona_probe.latents.encoding.top_examples import RunningTop


@pytest.mark.parametrize("n", [1, 3, 10])
def test_the_best_of_all_batches_are_kept_strongest_first(n):
    rng = np.random.default_rng(0)
    values = np.where(rng.random((40, 12)) < 0.5, rng.random((40, 12)), 0.0).astype(np.float32)  # (dialogue, latent)
    values[:, 3] = 0.0  # silent
    values[:, 4] = 0.0
    values[7, 4] = 2.0  # once
    top = RunningTop(12, n, torch.device("cpu"))
    for rows in np.array_split(rng.permutation(40), 6):
        row, latent = np.nonzero(values[rows])
        entries = (latent, values[rows][row, latent], rows[row], rows[row] * 10)
        top.update(*(torch.as_tensor(column) for column in entries))
    kept = top.result()
    for latent in range(12):
        order = [int(row) for row in np.argsort(-values[:, latent], kind="stable") if values[row, latent] > 0][:n]
        assert kept.of(latent) == [(row, row * 10, float(values[row, latent])) for row in order]
    assert kept.of(3) == []
    assert kept.of(4) == [(7, 70, 2.0)]
    assert kept.dialogues.shape == (12, n)
    assert (kept.values[3] == 0).all()


def test_no_examples_can_be_asked_for():
    top = RunningTop(4, 0, torch.device("cpu"))
    top.update(torch.tensor([1]), torch.tensor([2.0]), torch.tensor([0]), torch.tensor([5]))
    assert top.result().of(1) == []
