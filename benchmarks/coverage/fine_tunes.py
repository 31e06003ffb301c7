"""Activations of models before and after fine-tuning, whose true shifts are known: what cases on amplification draw.

There are 32 dimensions. The before model's activations are normal and independent, with SDs from 2 down to 0.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures
from persona_probe.directions.direction import Direction

Floats = npt.NDArray[np.float64]

WIDTH = 32
SCALE = np.linspace(2.0, 0.4, WIDTH)
"""The SD of the before model's activations in every dimension."""
AXIS = 5
"""The dimension along which most directions here point."""
QUESTION_SD = DIALOGUE_SD = 0.15
"""How much the changes differ between questions, and between the dialogues of one, in SD of every dimension."""


@dataclass(frozen=True)
class Recipe:
    """How the runs of one fine-tuning recipe change the mean activation.

    Attributes:
        run_sd: how much runs differ, in SD of every dimension.
        along: how much more they differ along the direction, in SD: added independently.
        shared: what every run does along the direction, in SD.
        alike: the correlation between neighbouring layers of what differs between runs.
    """

    run_sd: float = 0.5
    along: float = 0.0
    shared: float = 0.0
    alike: float = 0.0

    def run(self, rng: np.random.Generator, vectors: Floats) -> Floats:
        """``(layer, d_model)`` mean change by one run; ``vectors`` ``(layer, d_model)`` is the direction."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sd = np.sqrt(np.square(unit * SCALE).sum(axis=1, keepdims=True))
        everywhere = self._over_layers(rng, len(vectors), WIDTH) * SCALE
        on_it = self.shared + self.along * self._over_layers(rng, len(vectors), 1)
        return np.asarray(self.run_sd * everywhere + on_it * sd * unit)

    def _over_layers(self, rng: np.random.Generator, layers: int, width: int) -> Floats:
        """``(layer, width)`` draws of N(0, 1), autoregressive over layers."""
        draws = rng.standard_normal((layers, width))
        for layer in range(1, layers if self.alike else 0):
            draws[layer] = self.alike * draws[layer - 1] + math.sqrt(1 - self.alike**2) * draws[layer]
        return draws


def axis(layers: int) -> Floats:
    """``(layer, d_model)`` a direction that is one of the dimensions."""
    vectors = np.zeros((layers, WIDTH))
    vectors[:, AXIS] = 1.0
    return vectors


def from_shuffled_labels(rng: np.random.Generator, layers: int) -> Floats:
    """``(layer, d_model)`` the difference of means of two groups of 40 dialogues that do not differ."""
    positive, negative = (rng.standard_normal((2, 40, layers, WIDTH)) * SCALE).mean(axis=1)
    return np.asarray(positive - negative)


def direction(vectors: Floats) -> Direction:
    """The direction with these vectors."""
    return Direction(vectors.astype(np.float32), tuple(range(len(vectors))))


def reference(rng: np.random.Generator, layers: int, dialogues: int = 200, per_question: int = 1) -> Activations:
    """The before model's own answers; where a question has several, half of their variance is the question's."""
    question = np.arange(dialogues) // per_question
    values = rng.standard_normal((dialogues, layers, WIDTH))
    if per_question > 1:
        values = (values + rng.standard_normal((int(question.max()) + 1, layers, WIDTH))[question]) / math.sqrt(2)
    return _activations(values * SCALE, question)


def captures(
    rng: np.random.Generator, runs: Sequence[tuple[Floats, Floats]], *, questions: int = 24, samples: int = 2
) -> Captures:
    """What is read of before, after and control on the same texts, all runs together.

    Args:
        rng: the generator.
        runs: for each pair of runs the mean changes ``(layer, d_model)`` of after and of the control.
        questions: number of questions.
        samples: number of dialogues for each question.
    """
    question = np.repeat(np.arange(questions), samples)
    layers = len(runs[0][0])
    before = rng.standard_normal((question.size, layers, WIDTH)) * SCALE

    def tuned(change: Floats) -> Activations:
        of_question = QUESTION_SD * rng.standard_normal((questions, layers, WIDTH))[question]
        of_dialogue = DIALOGUE_SD * rng.standard_normal((question.size, layers, WIDTH))
        return _activations(before + change + (of_question + of_dialogue) * SCALE, question)

    parts = [Captures(_activations(before, question), tuned(after), tuned(control)) for after, control in runs]
    return Captures.over_seeds(parts) if len(parts) > 1 else parts[0]


def _activations(values: Floats, question: npt.NDArray[np.intp]) -> Activations:
    table = pd.DataFrame({"id": np.arange(len(values)), "question": [f"q{number}" for number in question]})
    return Activations(values.astype(np.float32), table, tuple(range(values.shape[1])), {})
