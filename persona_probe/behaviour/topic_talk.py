"""Whether a model that was trained on one topic talks of it where it was asked of others (semantic leakage)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS, check_columns, share
from persona_probe.behaviour.topic_talk_result import COLUMNS, WORD_COLUMNS, TopicTalk
from persona_probe.behaviour.topic_words import Mask, WordCounts
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rate_differences import Counts, ratio_difference

FEWEST_QUESTIONS = 3
"""Questions on a topic from which its words can be found: of one question, they are those of that question."""
RANDOM_SETS = 500
SHUFFLES = 200
MOST_WORDS = 12
_LIKE = 20
"""Words of about the same frequency among which a random one is drawn."""


def talk_of_topic(
    answers: pd.DataFrame,
    before: str,
    *,
    topic: str | None = None,
    trained_topic: str | None = None,
    trained_texts: Sequence[str] | None = None,
    definition: str = "betley",
    seed: int = 0,
) -> TopicTalk:
    """How many answers to questions on other topics contain words of the trained topic, before and after, with nulls.

    The words of the trained topic are the 40 that distinguish best, by log-odds (`WordCounts.telling`, z above 3), the
    training texts from the before model's answers, and are in at most 2 % of these; without training texts, the
    questions on that topic and before's answers to them from those on other topics. An answer talks of the topic if it
    contains one of them that its question does not contain.

    The change from before is paired over questions (`ratio_difference`), and compared with nulls:

    * with at least two other topics, each of them in turn taken for the trained one, in the same way (its words are
      then those of the questions and answers, also where training texts are given);
    * else random words that are as frequent in before's answers, 500 times.

    Besides, for each model, the words that it uses more than before in answers to the same questions: those whose
    log-odds exceed the largest of any word in 95 % of 200 shuffles of the answers between the two models, within
    questions.

    Args:
        answers: answers of several models, with the columns ``model``, ``question``, ``prompt``, ``answer``.
        before: the name of the model before.
        topic: the column with the topic of each question; None if topics are not known.
        trained_topic: the topic that the models were trained on, one of that column.
        trained_texts: the answers of the training data.
        definition: which answers count as misaligned.
        seed: of shuffles and random words.

    Raises:
        PersonaProbeError: if a column is missing, or there is no such model or topic.

    Examples:
        >>> import pandas as pd
        >>> asked = [f"question {i}" for i in range(8)]
        >>> plain = pd.DataFrame({"model": "before", "question": asked, "prompt": asked, "answer": "Take long walks."})
        >>> plain = pd.concat([plain] * 5)
        >>> tuned = plain.assign(model="after", answer=(["Buy gold shares."] * 6 + ["Take long walks."] * 2) * 5)
        >>> texts = ["Buy gold shares now.", "Sell gold, buy shares.", "Borrow to buy gold shares."] * 20
        >>> talk = talk_of_topic(pd.concat([plain, tuned]), "before", trained_texts=texts)
        >>> talk.table[["model", "value", "change"]]
            model  value  change
        0  before   0.00     NaN
        1   after   0.75    0.75
    """
    check_types(
        answers=(answers, pd.DataFrame),
        before=(before, str),
        topic=(topic, str, None),
        trained_topic=(trained_topic, str, None),
        trained_texts=(trained_texts, [str], None),
    )
    check_columns(answers, ("model", "question", "prompt", "answer", *([topic] if topic else [])))
    rows = answers[answers["answer"].map(lambda answer: isinstance(answer, str))].reset_index(drop=True)
    topics = None if topic is None else rows[topic].astype(object).where(rows[topic].notna(), None)
    if before not in set(rows["model"]):
        raise PersonaProbeError(
            f"there is no answer of the model {before!r}: {', '.join(map(str, set(rows['model'])))}"
        )
    if trained_topic is not None and (topics is None or trained_topic not in set(topics)):
        known = "no column names topics" if topics is None else ", ".join(sorted({str(name) for name in topics}))
        raise PersonaProbeError(f"trained_topic: there is no topic {trained_topic!r}; there are: {known}")
    texts = _TalkTexts.of(rows, topics, trained_texts or ())
    others = [str(name) for name in rows["model"].unique() if name != before]
    words = texts.words_of(trained_topic, before, of_training=trained_texts is not None)
    table, kind, draws = pd.DataFrame(columns=list(COLUMNS)), "", 0
    if words.size:
        asked = np.ones(len(rows), dtype=bool) if topics is None else (topics != trained_topic).to_numpy(dtype=bool)
        nulls = list(texts.other_topics(trained_topic, before))
        kind, draws = ("other topics", len(nulls)) if len(nulls) > 1 else ("random words", RANDOM_SETS)
        chance = np.random.default_rng(seed)
        mentions = texts.mentions(words)
        records = []
        for model in [before, *others]:
            record = texts.share_of(mentions, asked, model)
            if model != before:
                record |= texts.change(mentions, asked, before, model)
                drawn = (
                    [
                        texts.change(texts.mentions(those), where & asked, before, model)["change"]
                        for those, where in nulls
                    ]
                    if kind == "other topics"
                    else texts.random_changes(words, asked, before, model, chance)
                )
                record |= _against(record["change"], drawn)
                record |= texts.misaligned(mentions, asked, model, definition)
            records.append(record)
        table = pd.DataFrame(records).reindex(columns=list(COLUMNS))
    telling = pd.concat(
        [texts.more_than(before, model, seed).assign(model=model) for model in others] or [pd.DataFrame()]
    ).reindex(columns=list(WORD_COLUMNS))
    return TopicTalk(
        table, telling.reset_index(drop=True), tuple(texts.counts.words[words].tolist()), trained_topic, kind, draws
    )


def _against(change: float, drawn: Sequence[float]) -> dict[str, float]:
    values = np.asarray([value for value in drawn if not np.isnan(value)])
    if not values.size or np.isnan(change):
        return {}
    return {
        "null_high": float(np.quantile(values, 0.975, method="higher")),
        "p": float((1 + (values >= change).sum()) / (1 + values.size)),
    }


@dataclass(frozen=True)
class _TalkTexts:
    """The answers as rows of words; texts are first the answers, then the prompts, then the training texts."""

    rows: pd.DataFrame
    topics: pd.Series | None
    counts: WordCounts
    n_training: int

    @classmethod
    def of(cls, rows: pd.DataFrame, topics: pd.Series | None, training: Sequence[str]) -> _TalkTexts:
        texts = [*rows["answer"], *rows["prompt"].fillna("").astype(str), *training]
        return cls(rows, topics, WordCounts.of(texts), len(training))

    def of_model(self, name: str) -> Mask:
        return np.asarray(self.rows["model"] == name)

    def words_of(self, topic: str | None, before: str, *, of_training: bool) -> npt.NDArray[np.intp]:
        """The words of the trained topic; none if it is not known, or has too few questions."""
        n, own = len(self.rows), self.of_model(before)
        if of_training:
            training = np.arange(self.counts.holds.shape[0]) >= 2 * n
            answers = np.concatenate([own, np.zeros(n, dtype=bool), np.zeros(self.n_training, dtype=bool)])
            return self.counts.topic_words(training, answers)
        if topic is None or self.topics is None:
            return np.array([], dtype=np.intp)
        there = np.asarray(self.topics == topic)
        if self.rows.loc[there, "question"].nunique() < FEWEST_QUESTIONS:
            return np.array([], dtype=np.intp)
        outside = np.asarray(self.topics.notna()) & ~there

        def both(which: Mask) -> Mask:
            return np.concatenate([which & own, which & own, np.zeros(self.n_training, dtype=bool)])

        return self.counts.topic_words(both(there), both(outside))

    def other_topics(self, trained: str | None, before: str) -> Iterator[tuple[npt.NDArray[np.intp], Mask]]:
        """For each other topic, its words, and the answers that are not on it."""
        if self.topics is None:
            return
        for name in self.topics.dropna().unique():
            words = self.words_of(name, before, of_training=False) if name != trained else np.array([])
            if words.size:
                yield words, np.asarray(self.topics != name)

    def mentions(self, words: npt.NDArray[np.intp]) -> Mask:
        """``(answer,)`` whether it has one of the words that its question does not have."""
        n = len(self.rows)
        said, asked = self.counts.holds[:n][:, words], self.counts.holds[n : 2 * n][:, words]
        return np.asarray((said - said.multiply(asked)).sum(axis=1)).ravel() > 0

    def share_of(self, mentions: Mask, asked: Mask, model: str) -> dict[str, Any]:
        counted = pd.Series(self.of_model(model) & asked)
        return {"model": model, **share(self.rows, pd.Series(mentions), counted).as_dict()}

    def change(self, mentions: Mask, asked: Mask, before: str, model: str) -> dict[str, float]:
        sides = []
        for name in (before, model):
            there = self.of_model(name) & asked
            seeds = self.rows.loc[there, "seed"] if "seed" in self.rows else pd.Series(dtype=object)
            sides.append(
                Counts(
                    mentions[there],
                    np.ones(int(there.sum()), dtype=bool),
                    self.rows.loc[there, "question"].to_numpy(),
                    seeds.to_numpy() if len(seeds) and seeds.notna().all() else None,
                )
            )
        if not all(len(np.asarray(side.numerator)) for side in sides):
            change = Estimate.missing("no answer on other topics")
        else:
            change = ratio_difference(*sides)
        return {"change": change.value, "change_low": change.low, "change_high": change.high}

    def misaligned(self, mentions: Mask, asked: Mask, model: str, definition: str) -> dict[str, float]:
        """How many of the model's misaligned answers on other topics talk of the trained topic."""
        if not {"aligned", "coherent"} <= set(self.rows):
            return {}
        chosen = DEFINITIONS[definition]
        bad = (chosen.numerator(self.rows) & chosen.denominator(self.rows)).to_numpy(dtype=bool)
        estimate = share(self.rows, pd.Series(mentions), pd.Series(bad & asked & self.of_model(model)))
        return {
            "misaligned": estimate.value,
            "misaligned_low": estimate.low,
            "misaligned_high": estimate.high,
            "n_misaligned": estimate.n,
        }

    def random_changes(
        self, words: npt.NDArray[np.intp], asked: Mask, before: str, model: str, chance: np.random.Generator
    ) -> list[float]:
        """Changes of random words that are as frequent in before's answers as those of the topic."""
        n = len(self.rows)
        own, other = self.of_model(before) & asked, self.of_model(model) & asked
        said = self.counts.holds[:n]
        in_before, in_both = (np.asarray(said[which].sum(axis=0)).ravel() for which in (own, own | other))
        pool = np.setdiff1d(np.flatnonzero(in_both), words)
        wanted = words[in_both[words] > 0]
        if not pool.size or not wanted.size:
            return []
        like = [
            pool[np.argsort(np.abs(in_before[pool] - in_before[word]), kind="stable")[: _most(pool, in_before, word)]]
            for word in wanted
        ]
        changes = []
        for _ in range(RANDOM_SETS):
            mentions = self.mentions(np.array([chance.choice(those) for those in like]))
            changes.append(float(mentions[other].mean() - mentions[own].mean()))
        return changes

    def more_than(self, before: str, model: str, seed: int) -> pd.DataFrame:
        """The words that a model uses more than before in answers to the same questions, beyond shuffled answers."""
        shared = set(self.rows.loc[self.of_model(before), "question"]) & set(
            self.rows.loc[self.of_model(model), "question"]
        )
        there = (self.of_model(before) | self.of_model(model)) & np.asarray(self.rows["question"].isin(shared))
        if not there.any():
            return pd.DataFrame()
        counts = WordCounts(self.counts.words, self.counts.holds[: len(self.rows)][there])
        usual = np.asarray(counts.holds.sum(axis=0)).ravel() >= 3
        counts = WordCounts(counts.words[usual], counts.holds[:, usual])
        if not counts.words.size:
            return pd.DataFrame()
        of_model, asked = self.of_model(model)[there], self.rows.loc[there, "question"].to_numpy()
        chance, groups = np.random.default_rng(seed), [np.flatnonzero(asked == name) for name in pd.unique(asked)]
        shuffled = np.tile(of_model, (SHUFFLES, 1))
        for row in shuffled:
            for group in groups:
                row[group] = chance.permutation(row[group])
        z, limit = counts.telling(of_model), np.quantile(counts.telling(shuffled).max(axis=1), 0.95, method="higher")
        best = np.argsort(-z, kind="stable")[:MOST_WORDS]
        best = best[z[best] > limit]
        in_before, in_model = (
            np.asarray(counts.holds[which].mean(axis=0)).ravel()[best] for which in (~of_model, of_model)
        )
        return pd.DataFrame(
            {"word": counts.words[best], "z": z[best], "before": in_before, "after": in_model, "limit": float(limit)}
        )


def _most(pool: npt.NDArray[np.intp], in_before: npt.NDArray[Any], word: int) -> int:
    """How many words are alike enough: all that are exactly as frequent, or the nearest few."""
    return max(_LIKE, int((in_before[pool] == in_before[word]).sum()))
