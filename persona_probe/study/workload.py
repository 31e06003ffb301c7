"""How much work of each kind a study gives its models, by stage, before anything is loaded.

The kinds are sampling answers, reading texts (one forward pass: activations, preference, KL), training and judging;
each has its own speed. Every stage computes its own part (`persona_probe.study.stage.Stage.work`). What depends on the
answers (how many are empty, or coherent) is counted at its maximum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from persona_probe.behaviour.judges.api_judge import ApiJudge
from persona_probe.behaviour.judges.local_judge import LocalJudge
from persona_probe.behaviour.preference_pairs import POLES, PreferencePair
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.runs.config import StudyConfig, n_runs
from persona_probe.study.material import Material

_SAMPLE = 64
"""How many texts are tokenized; the others are assumed to have the same mean number of tokens."""


@dataclass(frozen=True)
class Work:
    """The work of one stage, or of a part of it.

    Attributes:
        answers: the number of answers that are sampled.
        answer_tokens: their tokens, with the prompts, if each answer has its greatest length.
        texts: the number of texts that are read in a forward pass, for activations or probabilities.
        text_tokens: their tokens.
        trained_tokens: the tokens in all fine-tuning steps, forward and backward.
        judged: the number of answers that are judged.
        judge_tokens: the tokens that the judging model reads for them; 0 if the judge is not a local language model.
        api_calls: the requests that a judge behind an API needs for them.
        api_tokens: about how many tokens it reads for them; nothing runs here meanwhile.
    """

    answers: int = 0
    answer_tokens: int = 0
    texts: int = 0
    text_tokens: int = 0
    trained_tokens: int = 0
    judged: int = 0
    judge_tokens: int = 0
    api_calls: int = 0
    api_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that models read and write here."""
        return self.answer_tokens + self.text_tokens + self.trained_tokens + self.judge_tokens

    def __add__(self, other: Work) -> Work:
        """The work of both together."""
        return Work(
            *(getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(self)),
        )


@dataclass(frozen=True)
class Sizes:
    """Everything from which a stage's work is computed.

    Attributes:
        config: the study.
        material: its texts.
        template: the chat template of its model.
        n_layers: the number of layers of its model.
    """

    config: StudyConfig
    material: Material
    template: ChatTemplate
    n_layers: int

    @property
    def n_models(self) -> int:
        """The number of models that are compared: before, after and, if there is one, the control."""
        return 3 if self.material.control or self.config.control is not None else 2

    @property
    def n_runs(self) -> int:
        """The number of fine-tuning runs."""
        return n_runs(self.config)

    @property
    def n_all_models(self) -> int:
        """The number of models of all runs, with those of a second control."""
        return 1 + (self.n_models - 1 + bool(self.material.second_control)) * self.n_runs

    @property
    def realignment_steps(self) -> int:
        """The number of realigned models: one for each number of benign examples above 0."""
        return sum(n > 0 for n in set(self.config.realignment.examples)) if self.material.benign else 0

    def length(self, dialogues: Sequence[Dialogue]) -> float:
        """The mean number of tokens of some dialogues, from an evenly spaced sample of them."""
        if not dialogues:
            return 0.0
        sample = dialogues[:: max(1, len(dialogues) // _SAMPLE)]
        return sum(len(self.template.encode(dialogue).input_ids) for dialogue in sample) / len(sample)

    def judging(self, length: float) -> float:
        """The tokens that the judging model reads for one question and answer of ``length`` tokens."""
        judge = self.material.judge
        return judge.tokens_per_answer(length) if isinstance(judge, LocalJudge) else 0.0

    def work(
        self, questions: Sequence[Dialogue], *, answers: int = 0, texts: int = 0, judged: int | None = None
    ) -> Work:
        """The work of sampling ``answers`` in all to ``questions``, and of reading ``texts`` of that length.

        Args:
            questions: the questions; the answers to them are assumed to have their greatest length.
            answers: how many answers are sampled.
            texts: how many answered questions are read, in one forward pass each.
            judged: how many answers are judged; default all that are sampled, if the study has a judge.
        """
        each = self.length(questions) + self.config.sampling.max_new_tokens
        scored = 0 if self.config.judge is None else answers if judged is None else judged
        by_model = self.judging(each) if scored else 0.0
        api = judge if isinstance(judge := self.material.judge, ApiJudge) else None
        return Work(
            answers,
            round(answers * each),
            texts,
            round(texts * each),
            judged=scored,
            judge_tokens=round(scored * by_model),
            api_calls=0 if api is None else scored * api.calls_per_answer(),
            api_tokens=0 if api is None else round(scored * api.tokens_per_answer(each)),
        )

    def pairs_work(self, pairs: Sequence[PreferencePair], times: int) -> Work:
        """The work of reading every answer of some pairs so many times."""
        answers = [pair.question.with_answer(text) for pair in pairs for pole in POLES for text in pair.answers(pole)]
        return Work(texts=times * len(answers), text_tokens=round(times * len(answers) * self.length(answers)))
