"""Planted changes: narrow training moves dimension 0, any training moves dimension 1."""

import numpy as np
import pandas as pd

import persona_probe as pp
from persona_probe.activations.captures import Captures

WIDTH = 64


def activations(values, questions=30, **columns):
    """``(dialogue, layer, d_model)`` as a capture of so many dialogues."""
    n = len(values)
    table = pd.DataFrame({"id": range(n), "question": [f"q{i % questions}" for i in range(n)], **columns})
    return pp.Activations(values.astype(np.float32), table, tuple(range(values.shape[1])))


def direction(*dimensions, layers=1):
    """A direction along the sum of some dimensions, of length 3."""
    vector = np.zeros((layers, WIDTH), dtype=np.float32)
    vector[:, list(dimensions)] = 3.0 / np.sqrt(len(dimensions))
    return pp.Direction(vector, tuple(range(layers)))


def captures(narrow=4.0, tuned=4.0, n=120, layers=1, questions=30, seed=0, noise=0.1, control=True):
    """Narrow training moves dimension 0 by ``narrow`` SD, and all training moves dimension 1 by ``tuned`` SD.

    Layer 0 carries the change in full, each further one half of the one before.
    """
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(n, layers, WIDTH))

    def after(first):
        change = np.zeros((layers, WIDTH))
        change[:, 0], change[:, 1] = first, tuned
        change *= 0.5 ** np.arange(layers)[:, None]
        return activations(before + change + noise * rng.normal(size=before.shape), questions)

    both = after(narrow), after(0.0) if control else None
    return Captures(activations(before, questions), *both)


def reference(layers=1, n=200):
    """The yardstick: every dimension has an SD of one."""
    return activations(np.random.default_rng(99).normal(size=(n, layers, WIDTH)))
