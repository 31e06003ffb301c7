"""What the documentation says of the gate of replication is what was measured; and the benchmark measures it."""

import json

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from benchmarks.layer_gate import OUT, QUESTIONS, REAL, Read, measure
from tests.conftest import CHECKPOINTS

MODELS = {"Persona World `chat`": "persona-world", "SmolLM2-135M-Instruct": "smollm2-135m-instruct"}


@pytest.mark.parametrize("title", MODELS)
def test_the_table_of_the_gate_is_as_measured(title):
    rows = json.loads(OUT.read_text(encoding="utf-8"))[MODELS[title]]
    text = (CHECKPOINTS.parents[1] / "docs" / "directions.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    noise = [row for row in rows if row["poles"] != "villain"]
    real = [row for row in rows if row["poles"] == "villain"]
    assert [row["questions"] for row in noise] == [n for n in QUESTIONS for _ in range(2)]
    assert [row["questions"] for row in real] == list(REAL)
    columns = (
        str(rows[0]["layers"]),
        ", ".join(str(row["replicate at any layer"]) for row in noise),
        ", ".join(str(row["without the correction over layers"]) for row in noise),
        ", ".join(f"{row['replicate at any layer']} of {row['directions']}" for row in real),
    )
    assert line == f"| {title} | {' | '.join(columns)} |"
    # What the gate is for.
    assert all(row["directions"] == 100 and row["replicate at any layer"] <= 5 for row in noise)
    assert all(row["replicate at any layer"] == row["directions"] for row in real)


def test_the_benchmark_counts_directions_that_replicate():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(48, 3, 16))
    table = pd.DataFrame({"question": [f"q{i}" for i in range(48)]})
    trait, default = (
        pp.Activations(values + shift + 0.3 * rng.normal(size=values.shape), table, (0, 1, 2))
        for shift in (np.eye(16)[0] * 3, 0.0)
    )
    rows = pd.DataFrame(measure(Read(trait, default), draws=6, real=2))
    noise = rows[rows["poles"] != "villain"]
    assert (noise["replicate at any layer"] <= 1).all()
    real = rows[rows["poles"] == "villain"].set_index("questions")["layers that replicate, mean"]
    assert (real.loc[[24, 48]] >= 2).all()
