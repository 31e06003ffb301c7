"""Activations with a class direction at layer 1 and nothing at layer 0."""

import numpy as np
import pandas as pd

import persona_probe as pp


def planted(signal, seed=0, n=240, d=16, groups=8):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    group = np.array([f"topic {i % groups}" for i in range(n)])
    values = rng.normal(size=(n, 2, d)).astype(np.float32)
    values[:, 1, 0] += signal * labels
    table = pd.DataFrame({"id": [f"d{i}" for i in range(n)], "group": group})
    return pp.Activations(values, table, (0, 1), {"model": "made up", "model_hash": "abc", "span": "response"}), labels
