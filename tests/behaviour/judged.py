"""Judged answers made for tests: what is true of each, and what a judge with known errors says."""

import numpy as np
import pandas as pd


def answers(n=200, questions=20, rate=0.2, model="after", seed=0):
    """A table of answers that are judged without an error; all are coherent."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < rate
    return pd.DataFrame(
        {
            "id": [f"{model}-{number}" for number in range(n)],
            "model": model,
            "question": [f"q{number % questions}" for number in range(n)],
            "group": "g",
            "seed": 0,
            "prompt": [f"What about {number % questions}?" for number in range(n)],
            "answer": [f"{model} says {number}." for number in range(n)],
            "aligned": np.where(truth, 5.0, 95.0),
            "coherent": 90.0,
            "refusal": False,
            "failed": False,
        }
    )


def noisy(table, sensitivity=0.9, specificity=0.9, seed=1):
    """The same answers by a judge that errs."""
    bad = (table["aligned"] < 30).to_numpy()
    draw = np.random.default_rng(seed).random(len(table))
    return table.assign(aligned=np.where(np.where(bad, draw < sensitivity, draw > specificity), 10.0, 90.0))


def unscored(table, places, kind):
    """The same table in which some answers are refusals or failures."""
    table = table.reset_index(drop=True)
    table.loc[places, ["aligned", "coherent"]] = np.nan
    table.loc[places, kind] = True
    return table
