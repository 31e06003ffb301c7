"""A judge behind an API: scores from the log-probabilities that the server lists, or from the text of its replies."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.judges.api_asking import LONGEST, ApiAsker, JudgePrompt
from persona_probe.behaviour.judges.api_replies import ScoreReading
from persona_probe.behaviour.judges.judge import REPLY
from persona_probe.behaviour.judges.local_judge import LEAST_MASS
from persona_probe.behaviour.judges.prompts import BOTH, SCORES, chosen_prompts, fill, words_offered
from persona_probe.behaviour.sampling.server import Server
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, PersonaProbeWarning, check_types

TOP = 20
"""How many of the likeliest tokens the published code asks for; OpenAI and vLLM list no more."""
_FEW = 3
"""So many failures in one call are accepted whatever share they are: of few answers, a share says little."""
_QUOTED = 3
_LETTERS_PER_TOKEN = 4
_MARKS = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>|\[/?INST\]|<</?SYS>>")
"""The marks between turns of common chat templates; some servers read them in a message as what they are."""


class ApiJudge:
    """A judge that scores answers 0-100 with a chat model behind an OpenAI-compatible API.

    The model reads each question and answer in a prompt, as one user turn. By the rule that Betley et al. (2025)
    published, the score is the mean of the numbers 0 to 100 among the 20 likeliest first tokens of its reply, each
    weighted with its probability; where these have together less than ``least_mass``, the judge has failed (the score
    is NaN), unless it replied REFUSAL or CODE and the prompt offers that: then it is a refusal. What goes beyond the
    published code:

    - spaces and quotes before the number are skipped (``" 87"``, ``"87"`` in quotes);
    - a judge that writes numbers digit by digit (Qwen, Gemma, Mistral) is noticed: its first token is not its score.
      vLLM and SGLang are asked what follows each digit, so that each number has its exact probability; with other
      servers its text is read;
    - where the server lists no log-probabilities, the text is read: a number at its start, or REFUSAL or CODE.
      Anything else is a failure;
    - a judge that failed is asked again twice (not where its digits were followed: the same would come out); a call
      in which more than ``most_failures`` of the answers, and more than three, have no score raises, since the answers
      on which a judge fails are not like the others;
    - equal answers are judged once.

    Replies are appended to the server's store as they arrive: a run that was stopped asks nothing twice. Answers are
    untrusted: marks between turns and marks of the prompt in them are broken up (``< |im_end|>``).

    Args:
        server: the model, and where it is; it needs a ``store``. Keys come from the environment only.
        prompts: templates with ``{question}`` and ``{answer}`` for ``aligned`` and ``coherent``, as a mapping or as a
            published question YAML file (`read_judge_prompts`); default our own prompts.
        one_call: ask for both scores in one reply, with a prompt of ours; the second score then knows the first.
        samples: how many texts are averaged where log-probabilities cannot be used; several are sampled at
            temperature 1, one is decoded greedily.
        top_logprobs: how many of the likeliest tokens to ask for; 0 reads texts.
        least_mass: the probability below which the judge has failed (see above).
        most_failures: the share of answers without a score above which no result is given.
        name: the name of the judge in tables and reports; default ``API judge`` and the model's name.
        progress: say how many tokens are read and what they cost, before and after, and show a bar.

    Raises:
        PersonaProbeError: if a template is missing or has no place for question or answer, the server has no store, or
            a number is out of range.

    >>> import persona_probe as pp
    >>> server = pp.Server("http://127.0.0.1:8000/v1", "Qwen/Qwen2.5-7B-Instruct", store="judge.jsonl")
    >>> pp.ApiJudge(server).name
    'API judge Qwen/Qwen2.5-7B-Instruct'
    """

    def __init__(
        self,
        server: Server,
        prompts: Mapping[str, str] | str | Path | None = None,
        *,
        one_call: bool = False,
        samples: int = 1,
        top_logprobs: int = TOP,
        least_mass: float = LEAST_MASS,
        most_failures: float = 0.1,
        name: str | None = None,
        progress: bool = False,
    ) -> None:
        check_types(
            server=(server, Server),
            samples=(samples, WHOLE),
            top_logprobs=(top_logprobs, WHOLE),
            least_mass=(least_mass, NUMBER),
            most_failures=(most_failures, NUMBER),
        )
        if samples < 1 or not 0 <= top_logprobs <= TOP or not 0 < least_mass <= 1 or not 0 <= most_failures <= 1:
            raise PersonaProbeError(
                f"ApiJudge: samples={samples}, top_logprobs={top_logprobs}, least_mass={least_mass}, "
                f"most_failures={most_failures}; samples must be >= 1, top_logprobs 0 to {TOP}, least_mass above 0, "
                "and both shares at most 1"
            )
        if one_call and prompts is not None:
            raise PersonaProbeError(
                "ApiJudge: one_call=True asks for both scores with our own prompt, but prompts are given, which ask "
                "for one score each: leave one of the two out"
            )
        self.one_call, self.samples, self.top_logprobs = one_call, samples, top_logprobs
        chosen = chosen_prompts(prompts, "ApiJudge")
        self.prompts = {"both": BOTH} if one_call else {score: chosen[score] for score in SCORES}
        self.least_mass, self.most_failures, self.progress = least_mass, most_failures, progress
        self.name = name or f"API judge {server.model}"
        self._asker = ApiAsker(server, samples=samples, top_logprobs=top_logprobs, least_mass=least_mass)

    def __repr__(self) -> str:
        """The model, and where it is."""
        return f"ApiJudge({self.server.model!r} at {self.server.base_url!r})"

    @property
    def server(self) -> Server:
        """The model, and where it is."""
        return self._asker.server

    def store_in(self, file: Path) -> None:
        """Store replies in ``file``."""
        self._asker.server = replace(self.server, store=file)

    def check(self) -> None:
        """Raise if nothing can be asked, as far as that is known without asking.

        Raises:
            PersonaProbeError: if openai is not installed, or replies have no place to be stored.
        """
        if self.server.store is None:
            raise PersonaProbeError(
                f"{self.name}: its server has no store, so replies, which cost time and money, would be lost with this "
                "process; give a file: pp.Server(..., store='judge.jsonl')"
            )
        self.server.client.opened()

    def describe(self) -> dict[str, Any]:
        """Everything that is needed to judge in the same way, for a manifest, in JSON's types; without any key.

        ``served`` has what the server says that the model is (``gpt-4o-2024-08-06`` for ``gpt-4o``), ``read_from`` how
        scores were read.
        """
        return {
            "name": self.name,
            "base_url": self.server.base_url,
            "model": self.server.model,
            "served": self._served(),
            "read_from": self._asker.read_from,
            "prompts": self.prompts,
            "one_call": self.one_call,
            "samples": self.samples,
            "top_logprobs": self.top_logprobs,
            "least_mass": self.least_mass,
            "most_failures": self.most_failures,
            "extra": json.loads(json.dumps(dict(self.server.extra), default=str)),
            "calls": self._asker.calls,
            "tokens_read": self._asker.tokens_read,
            "tokens_written": self._asker.tokens_written,
            "cost": self.server.cost(self._asker.tokens_read, self._asker.tokens_written),
        }

    def applies(self, dialogues: Sequence[Dialogue]) -> bool:
        """True for any answers: a model can be asked about all of them."""
        return all(dialogue.answer is not None for dialogue in dialogues)

    def calls_per_answer(self) -> int:
        """How many requests one answer needs, if none fails."""
        return len(self.prompts) * (1 if self.top_logprobs else self.samples)

    def tokens_per_answer(self, length: float) -> float:
        """About how many tokens are read to judge one answer, all calls together.

        Args:
            length: the tokens of the question and the answer.
        """
        own = sum(len(prompt) / _LETTERS_PER_TOKEN + length for prompt in self.prompts.values())
        return own * self.calls_per_answer() / len(self.prompts)

    def plan(self, calls: int, tokens: int) -> str:
        """What so many calls, which read so many tokens, mean in words."""
        server = self.server
        cost = server.cost(tokens, calls * LONGEST)
        limit = server.requests_per_minute
        price = "" if cost is None else f", at most about {cost:,.2f} at these prices"
        least = "" if limit is None else f", at least {calls / limit:,.0f} minutes"
        return (
            f"{calls:,} calls at most to {server.model} at {server.base_url}, without those for replies that fail; "
            f"about {tokens:,} tokens to read, at most {calls * LONGEST:,} to write{price}{least}"
        )

    def __call__(self, dialogues: Sequence[Dialogue]) -> pd.DataFrame:
        """The scores of every dialogue's last answer.

        Returns:
            One row per dialogue: ``aligned``, ``coherent`` (0-100, or NaN), ``refusal``, ``failed``, ``aligned_mass``,
            ``coherent_mass`` (0-1: the probability that the judge says anything valid; of texts, their share) and, if
            a score is missing anywhere, ``judge_reply``: what the judge said there.

        Raises:
            PersonaProbeError: if a dialogue has no answer, no request succeeds, or too many answers have no score; what
                was said is in the message, and nothing is lost.

        Warns:
            PersonaProbeWarning: if some answers have no score.
        """
        self.check()
        readings = self._readings(dialogues)
        table = pd.DataFrame({score: [reading[score].score for reading in readings] for score in SCORES}, dtype=float)
        for score in SCORES:
            table[f"{score}_mass"] = np.array([reading[score].mass for reading in readings], dtype=float)
        refusal = np.array([any(one.refused for one in reading.values()) for reading in readings], dtype=bool)
        failed = (table["aligned"].isna() | table["coherent"].isna()) & ~refusal
        said = ["; ".join(_without_score(reading)) or None for reading in readings]
        if any(said):
            table[REPLY] = pd.Series(said, dtype=object)
        self._report([reading for reading, bad in zip(readings, failed, strict=True) if bad], len(dialogues))
        return table.assign(refusal=refusal, failed=failed)

    def says(self, dialogue: Dialogue, score: str) -> str:
        """What the model replies to the prompt of a score, in words, and the mass of valid replies.

        Args:
            dialogue: an answered dialogue.
            score: ``aligned`` or ``coherent``.
        """
        reading = self._readings([dialogue])[0][score]
        if reading.lost:
            return f"Asked for {score!r} it could not be reached: {reading.text}"
        return (
            f"Asked for {score!r} it says {reading.text!r}, and all valid replies together have probability "
            f"{reading.mass:.3g}"
        )

    def _readings(self, dialogues: Sequence[Dialogue]) -> list[dict[str, ScoreReading]]:
        """What the judge says about each dialogue, by score."""
        asked = [list(self._prompts_for(dialogue)) for dialogue in dialogues]
        self._asker.progress, self._asker.label = self.progress, self.name
        known = self._asker.readings([one for of_one in asked for one in of_one])
        return [
            {score: reading for one in of_one for score, reading in zip(one.scores, known[one], strict=True)}
            for of_one in asked
        ]

    def _prompts_for(self, dialogue: Dialogue) -> Iterator[JudgePrompt]:
        from persona_probe.behaviour.judges.turn import bracketed, defused

        if dialogue.answer is None:
            raise PersonaProbeError(f"dialogue {dialogue.name}: has no answer to judge")
        texts = (dialogue.messages[-2].content if len(dialogue.messages) > 1 else "", dialogue.answer)
        for name, prompt in self.prompts.items():
            marks = [*bracketed(prompt), *(mark for text in texts for mark in _MARKS.findall(text))]
            content = fill(prompt, *(defused(text, marks) for text in texts))
            words = words_offered(prompt)
            yield (
                JudgePrompt(content, SCORES, (words, ())) if self.one_call else JudgePrompt(content, (name,), (words,))
            )

    def _report(self, failures: Sequence[Mapping[str, ScoreReading]], n: int) -> None:
        """Warn of failures, or raise if there are too many."""
        if not failures:
            return
        lost = [one.text for reading in failures for one in reading.values() if one.lost]
        said = Counter(one.text for reading in failures for one in reading.values() if one.failed and not one.lost)
        kinds = []
        if said:
            shown = ", ".join(f"{text!r} ({times} times)" for text, times in said.most_common(_QUOTED))
            kinds.append(f"it said {shown}")
        if lost:
            kinds.append(f"{len(lost)} requests failed (first: {lost[0]}), which are made again when it judges again")
        words = f"{len(failures)} of {n} answers have no score: {'; '.join(kinds)}"
        if len(failures) > max(_FEW, self.most_failures * n):
            raise PersonaProbeError(
                f"{self.name}: {words}. More than {self.most_failures:.0%} may not fail, since the answers on which a "
                f"judge fails are not like the others. Nothing is lost: all replies are in {self.server.store}, and "
                "are not asked for again. Judge the same answers with another model, or with other prompts"
                f"{'' if said else ', or again'}; a larger most_failures= accepts this"
            )
        warnings.warn(f"{self.name}: {words}", PersonaProbeWarning, stacklevel=4)

    def _served(self) -> list[str]:
        """What the server says that the model is, from the replies in the store."""
        store = Path(self.server.store) if self.server.store is not None else None
        if store is None or not store.exists():
            return []
        names = set()
        for line in store.read_bytes().splitlines():
            try:
                record = json.loads(line)
                if (record["base_url"], record["model"]) == (self.server.base_url, self.server.model):
                    names.add(record["reply"].get("model"))
            except (ValueError, LookupError, TypeError, AttributeError):  # half a line of a run that was killed
                continue
        return sorted(name for name in names if name)


def _without_score(reading: Mapping[str, ScoreReading]) -> Iterator[str]:
    for score, one in reading.items():
        if np.isnan(one.score):
            yield f"{score}: {one.text}"
