"""The log-probability of each answer of preference pairs, after its own question and after others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona_probe.activations.scoring import answer_log_probs
from persona_probe.behaviour.preference_pairs import KINDS, POLES, PreferencePair, check_pairs
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHUFFLES = 4
"""After how many other questions each answer is read."""
_PLAIN = (
    "{% for message in messages %}"
    "{{ {'system': '', 'user': 'Question: ', 'assistant': 'Answer: ', 'tool': 'Result: '}[message['role']] }}"
    "{{ message['content'] }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def score_pairs(
    model: Model,
    pairs: Sequence[PreferencePair],
    *,
    shuffles: int = SHUFFLES,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The log-probability of every answer under the model as it stands, also inside ``with pp.steer(model, ...)``.

    Each number is what a single forward pass of question and answer gives, within rounding; a prompt is read once for
    all of its answers. A model without a chat template (a base model) reads plain text: ``Question: ...``, an empty
    line, ``Answer: ...``. Under steering with a list, the i-th intervention is for the i-th question.

    Args:
        model: which model reads.
        pairs: questions with aligned and misaligned answers.
        shuffles: after how many other questions of the same kind each answer is read too; 0 for none. Which ones does
            not depend on the model.
        tokens_per_batch: padded tokens per forward pass.
        progress: show a progress bar.

    Returns:
        One row per answer and question after which it was read: ``pair`` (its number), ``question`` (that of the
        answer), ``topic``, ``kind``, ``pole``, ``wording`` (its number), ``answer``, ``after`` (the question after
        which it was read), ``shuffled`` (whether that is another one), ``tokens``, ``log_prob`` (nats, summed over the
        answer's tokens), ``log_prob_per_token``.

    Raises:
        PersonaProbeError: if there are no pairs, or a question occurs twice; the question is named.
    """
    check_types(model=(model, Model), shuffles=(shuffles, WHOLE))
    check_pairs(pairs)
    if shuffles < 0:
        raise PersonaProbeError(f"shuffles is {shuffles}; give the number of other questions, or 0")
    rows = [
        (number, asked, pole, wording)
        for number, others in enumerate(_others(pairs, int(shuffles)))
        for asked in (number, *others)
        for pole in POLES
        for wording in range(len(pairs[number].answers(pole)))
    ]
    sums, counts = answer_log_probs(
        model,
        [
            pairs[asked].question.with_answer(pairs[number].answers(pole)[wording])
            for number, asked, pole, wording in rows
        ],
        rows=[asked for _, asked, _, _ in rows],
        template=template_of(model),
        tokens_per_batch=tokens_per_batch,
        progress=progress,
    )
    return pd.DataFrame(
        {
            "pair": [number for number, _, _, _ in rows],
            "question": [pairs[number].name for number, _, _, _ in rows],
            "topic": [pairs[number].topic for number, _, _, _ in rows],
            "kind": [pairs[number].kind for number, _, _, _ in rows],
            "pole": [pole for _, _, pole, _ in rows],
            "wording": [wording for _, _, _, wording in rows],
            "answer": [pairs[number].answers(pole)[wording] for number, _, pole, wording in rows],
            "after": [pairs[asked].name for _, asked, _, _ in rows],
            "shuffled": [asked != number for number, asked, _, _ in rows],
            "tokens": counts,
            "log_prob": sums,
            "log_prob_per_token": sums / counts,
        }
    )


def template_of(model: Model) -> ChatTemplate:
    """The model's chat template; one that writes plain text, if it has none."""
    if model.template.exists:
        return model.template
    tokenizer: PreTrainedTokenizerBase = copy.copy(model.tokenizer)
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + _PLAIN
    template = ChatTemplate(tokenizer)
    template.embedding_rows = model.template.embedding_rows
    return template


def _others(pairs: Sequence[PreferencePair], shuffles: int) -> list[list[int]]:
    """For each pair, the numbers of the pairs of its kind whose questions its answers are read after.

    All pairs of a kind stand in one random circle, and each is read after the next ones, so that every question is used
    equally often.
    """
    others: list[list[int]] = [[] for _ in pairs]
    for kind in KINDS:
        members = [number for number, pair in enumerate(pairs) if pair.kind == kind]
        circle = np.random.default_rng(0).permutation(members).tolist()
        for place, number in enumerate(circle):
            steps = range(1, 1 + min(shuffles, len(circle) - 1))
            others[number] = [int(circle[(place + step) % len(circle)]) for step in steps]
    return others
