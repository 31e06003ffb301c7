"""Whether a server runs the model that it should: what was compared, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

WITHOUT_ADAPTER = "without its adapter"
ROUNDING = 2.0
"""How many times what half precision does a server may differ, unless a tolerance is given.

Copies in bfloat16 differ about as much as multiplying in bfloat16 does to the same tokens, those in float16 less, and
adapters of other topics and other bases several times as much: `tests/behaviour/test_check_server.py`, and
``benchmarks/results/vllm_server.json`` for a real server. An adapter that hardly changes its base may be within it.
"""
OTHER_WEIGHTS = 8.0
"""From so many times on it is more likely another adapter or base model than its weights with fewer bits."""
LEAST_ALIKE = 0.95
"""The least share of greedy tokens that the local model would write too, where the server gives no log-probabilities.

Rounding changes few greedy tokens. An adapter of the same rows with another seed changes as few, so that this cannot
see it.
"""


@dataclass(frozen=True)
class ServerCheck(TableResult):
    """Answers of a server, read by local weights.

    Attributes:
        table: one row per answer: ``question``, ``temperature``, ``answer``; ``prompt_tokens`` and
            ``own_prompt_tokens`` (as the server and we count the prompt), ``tokens`` and ``own_tokens`` (the answer's),
            ``compared`` (whether the answer's tokens are the same), ``difference`` (mean absolute difference of a
            token's log-probability, nats; NaN without log-probabilities), ``alike`` (the share of its tokens that the
            local model would write there greedily) and ``same_text`` (whether it would write all of the answer; None
            for sampled ones).
        server, model: their names.
        difference: mean absolute difference of a token's log-probability (nats); NaN if the server gives none.
        tolerance: the largest difference that is allowed.
        rounding: the same difference between the local model and itself in half precision.
        others: the difference from each model that the server might run instead; of the adapter's base ``without its
            adapter``.
        alike: the share of greedy tokens that the local model would write too.
        others_alike: the same for each of the others.
        same_text: the share of greedy answers that the local model would write too.
    """

    table: pd.DataFrame
    server: str
    model: str
    difference: float
    tolerance: float
    rounding: float
    alike: float
    same_text: float
    others: Mapping[str, float] = field(default_factory=dict)
    others_alike: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the server can run the local model."""
        return not self.problem

    @property
    def problem(self) -> str:
        """What the server most likely runs instead, in words; empty if nothing speaks against the local model."""
        counted = self.table[self.table["prompt_tokens"].notna()]
        other = counted[counted["prompt_tokens"] != counted["own_prompt_tokens"]]
        if len(other):
            first = other.iloc[0]
            return (
                "another chat template (or another default system prompt, or the beginning-of-sequence token twice): "
                f"{len(other)} of {len(counted)} prompts have another number of tokens, such as {first['question']!r}: "
                f"{first['prompt_tokens']:.0f} at the server, {first['own_prompt_tokens']:.0f} here"
            )
        if 2 * self.table["compared"].sum() < len(self.table):
            cut = self.table[~self.table["compared"]]
            first = cut.iloc[0]
            return (
                f"another tokenizer, or a template that cuts answers: {len(cut)} of {len(self.table)} answers have "
                f"other tokens, such as {first['answer'][:60]!r}: {first['tokens']:.0f} at the server, "
                f"{first['own_tokens']:.0f} here"
            )
        return self._other_weights() if not math.isnan(self.difference) else self._other_words()

    def _other_weights(self) -> str:
        nearest = min(self.others, key=lambda name: self.others[name], default=None)
        far = OTHER_WEIGHTS * self.rounding
        if nearest is not None and self.others[nearest] < min(self.difference, far):
            return f"{self._called(nearest)}: from that it differs by {self.others[nearest]:.4f} nats per token"
        if self.difference <= self.tolerance:
            return ""
        if self.difference >= far:
            return "another base model, another adapter, or a template that writes other words of the same length"
        return (
            "the same weights with fewer bits (quantised), or a similar adapter (another seed, another data set): give "
            "tolerance= if you know that they are quantised"
        )

    def _called(self, name: str) -> str:
        return f"the same model {name}" if name == WITHOUT_ADAPTER else f"{name!r}"

    def _other_words(self) -> str:
        nearest = max(self.others_alike, key=lambda name: self.others_alike[name], default=None)
        if nearest is not None and self.others_alike[nearest] > self.alike:
            return f"{self._called(nearest)}, which would write {self.others_alike[nearest]:.1%} of its greedy tokens"
        return "" if self.alike >= LEAST_ALIKE else "another base model or adapter, or quantised weights"

    def plot(self) -> go.Figure:
        """The difference of each answer, and the tolerance.

        Raises:
            PersonaProbeError: if the server gives no log-probabilities.
        """
        from persona_probe.figures.server_check import server_check

        return server_check(self.table, tolerance=self.tolerance)

    def headline(self) -> str:
        """The verdict in one line, with its numbers."""
        numbers = f"{self.alike:.1%} of its greedy tokens and {self.same_text:.0%} of its greedy answers are the same"
        if math.isnan(self.difference):
            numbers = f"it gives no log-probabilities; {numbers}"
        else:
            apart = ", ".join(f"{value:.4f} from {name}" for name, value in self.others.items())
            numbers = (
                f"log-probabilities differ by {self.difference:.4f} nats per token from {self.model}'s"
                f"{f' ({apart})' if apart else ''}, {self.tolerance:.4f} are allowed, rounding to half precision makes "
                f"{self.rounding:.4f}; {numbers}"
            )
        if self.passed:
            return f"{self.server} runs {self.model}: {numbers}"
        return f"{self.server} does not run {self.model}, but most likely {self.problem}. Measured: {numbers}"
