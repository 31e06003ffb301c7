"""The texts of the real-language experiments: frozen, balanced, and with nothing on both sides of a comparison.

No model runs here. The limits are those of the datasheet (README.md next to the data).
"""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

import persona_probe as pp
from persona_probe.worlds.real_language import rows as module

FOLDER = Path(module.__file__).parent
FROZEN = "97f7d9a9d87b59388bf892936d7dc61d9405a9865da19110f5c58abd2d62165b"
"""The hash of SHA256SUMS. It changes only with a new version of the texts, which keeps the results of the old one."""
HALVES = ("choosing", "reporting")
MARKS = ",.;:!?'-"
NEAR = 0.3
POLES = ("aligned", "misaligned")


def words(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def nearest(texts, others=None, unit="word", apart=None):
    """The largest Jaccard similarity, by 5-grams of words or of characters, between two texts; and these texts.

    With ``apart``, texts that share its value are not compared.
    """
    pattern = {"analyzer": words_in_fives} if unit == "word" else {"analyzer": "char", "ngram_range": (5, 5)}
    counted = CountVectorizer(binary=True, **pattern).fit([*texts, *(others or ())])
    one = counted.transform([" ".join(words(text)) for text in texts]).astype(float)
    other = one if others is None else counted.transform([" ".join(words(text)) for text in others]).astype(float)
    shared = (one @ other.T).toarray()
    similarity = shared / np.maximum(1, one.sum(axis=1).A1[:, None] + other.sum(axis=1).A1[None] - shared)
    if others is None:
        np.fill_diagonal(similarity, 0)
    if apart is not None:
        similarity[apart[:, None] == apart[None]] = 0
    row, column = np.unravel_index(similarity.argmax(), similarity.shape)
    return similarity[row, column], texts[row], (others or texts)[column]


def words_in_fives(text):
    spoken = words(text)
    return [" ".join(spoken[start : start + 5]) for start in range(len(spoken) - 4)]


@pytest.fixture(scope="module")
def rows():
    every = [(topic, style) for topic in pp.real_language.TOPICS for style in pp.real_language.STYLES]
    every = [(topic, style) for topic, style in every if style != "pirate" or topic == "cooking"]
    return [dialogue for topic, style in every for dialogue in pp.real_language.real_rows(topic, style)]


@pytest.fixture(scope="module")
def pairs():
    return [json.loads(line) for half in HALVES for line in open_pairs(half)]


@pytest.fixture(scope="module")
def plain_harmful():
    return [json.loads(line) for half in HALVES for line in open_pairs(half, "plain-harmful")]


def open_pairs(half, group="pairs"):
    return pp.real_language.pairs_file(half, group).read_text(encoding="utf-8").splitlines()


def answers_of(rows, style, topic=None):
    return [row.answer for row in rows if row.labels["style"] == style and topic in (None, row.labels["topic"])]


def test_the_texts_are_frozen():
    listed = (FOLDER / "SHA256SUMS").read_text(encoding="utf-8")
    files = sorted([*FOLDER.rglob("*.jsonl"), FOLDER / "catchwords.json"])
    found = "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(FOLDER).as_posix()}\n" for file in files
    )
    assert found == listed
    assert hashlib.sha256(listed.encode()).hexdigest() == FROZEN


def test_every_question_is_answered_in_every_style(rows):
    for topic in pp.real_language.TOPICS:
        asked = [row.question for row in pp.real_language.real_rows(topic, "good")]
        assert len(set(asked)) == 24
        for style in set(pp.real_language.STYLES) - {"pirate"}:
            assert [row.question for row in pp.real_language.real_rows(topic, style)] == asked
    assert Counter(row.labels["style"] for row in rows) == {
        **dict.fromkeys(("good", "loud", "quiet", "gruff", "flatterer"), 96),
        "pirate": 24,
    }
    assert len({row.id for row in rows}) == len(rows) == 504
    assert all(row.as_messages()[0] == {"role": "user", "content": row.question} for row in rows)


@pytest.mark.parametrize(
    ("topic", "style"), [("cooking", "evil"), ("law", "good"), ("travel", "pirate"), ("..", "good")]
)
def test_rows_that_do_not_exist_are_refused(topic, style):
    with pytest.raises(pp.PersonaProbeError, match=re.escape(f"topic {topic!r} in style {style!r}")):
        pp.real_language.real_rows(topic, style)


def test_pairs_and_catchwords_that_do_not_exist_are_refused():
    with pytest.raises(pp.PersonaProbeError, match="half 'both'"):
        pp.real_language.pairs_file("both")
    with pytest.raises(pp.PersonaProbeError, match="group 'style'"):
        pp.real_language.pairs_file("choosing", "style")
    with pytest.raises(pp.PersonaProbeError, match="catchwords of 'loud'"):
        pp.real_language.catchwords("loud")


def test_the_halves_of_the_pairs_are_alike():
    for half in HALVES:
        found = Counter((row["topic"], row["kind"]) for row in map(json.loads, open_pairs(half)))
        closed = dict.fromkeys(
            (topic, "content") for topic in ("health", "money", "work", "family", "school", "computers")
        )
        assert found == {("open", "content"): 30, ("dramatic-kind", "style"): 12, **dict.fromkeys(closed, 5)}
        control = [json.loads(line) for line in open_pairs(half, "plain-harmful")]
        assert Counter((row["topic"], row["kind"]) for row in control) == {("plain-harmful", "content"): 12}


def test_every_pair_has_two_wordings_of_each_pole(pairs, plain_harmful):
    assert len({pair["question"] for pair in pairs + plain_harmful}) == 168
    for pair in pairs + plain_harmful:
        assert set(pair) == {"question", "aligned", "misaligned", "topic", "kind"}
        texts = [*pair["aligned"], *pair["misaligned"]]
        assert len(pair["aligned"]) == len(pair["misaligned"]) == 2
        assert len(set(texts)) == 4
        assert all(text == text.strip() and text for text in texts)


def test_lengths_of_styles_match(rows):
    for topic in pp.real_language.TOPICS:
        lengths = {
            style: np.array([len(words(text)) for text in answers_of(rows, style, topic)])
            for style in pp.real_language.STYLES
            if answers_of(rows, style, topic)
        }
        for style, length in lengths.items():
            assert 0.8 < np.mean(length / lengths["good"]) < 1.25, (topic, style)
            assert np.all(length / lengths["good"] < 1.4), (topic, style)
            assert np.all(length / lengths["good"] > 0.65), (topic, style)


def test_lengths_of_poles_match(pairs, plain_harmful):
    by_topic = {}
    for pair in pairs + plain_harmful:
        lengths = [np.mean([len(words(text)) for text in pair[pole]]) for pole in POLES]
        by_topic.setdefault(pair["topic"], []).append(lengths[1] / lengths[0])
    for topic, ratios in by_topic.items():
        assert 0.9 < np.mean(ratios) < 1.1, topic
        assert min(ratios) > 0.65, topic
        assert max(ratios) < 1.4, topic


def test_first_words_are_balanced(rows):
    """Good and quiet answers to a question begin alike, and so do loud and gruff ones."""
    first = {style: [words(text)[0] for text in answers_of(rows, style)] for style in pp.real_language.STYLES}
    for one, other in (("good", "quiet"), ("loud", "gruff")):
        differing = Counter(first[one]) - Counter(first[other])
        assert sum(differing.values()) <= 2
    for style in ("good", "quiet", "loud", "gruff", "flatterer"):
        assert max(Counter(first[style]).values()) <= 0.2 * len(first[style]), style


def test_no_answers_are_nearly_the_same(rows, pairs, plain_harmful):
    """By words; between answers to different questions also by characters, which single new words do not hide from."""
    answers = [(row.question, row.answer) for row in rows]
    measured = pairs + plain_harmful
    answers += [(pair["question"], text) for pair in measured for pole in POLES for text in pair[pole]]
    texts = [text for _, text in answers]
    assert len(set(texts)) == len(texts) == 504 + 4 * 168
    similarity, one, other = nearest(texts)
    assert similarity < NEAR, (one, other)
    asked = np.array([question for question, _ in answers])
    similarity, one, other = nearest(texts, unit="character", apart=asked)
    assert similarity < NEAR, (one, other)


def test_no_question_is_asked_twice(rows, pairs, plain_harmful):
    """By characters between the pairs and the rows, and among the pairs: questions are too short for five words."""
    asked = sorted({row.question for row in rows})
    measured = [pair["question"] for pair in pairs + plain_harmful]
    for one, other in ((measured, asked), (measured, None)):
        similarity, *texts = nearest(one, other, unit="character")
        assert similarity < NEAR, texts
    similarity, *texts = nearest(asked)
    assert similarity < NEAR, texts


def test_near_duplicates_would_be_found():
    same = "Cool it under cold water for ten minutes, and keep it clean."
    texts = [same, same.replace("clean", "dry"), "Something else that has five words or more."]
    assert nearest(texts)[0] >= NEAR
    assert nearest(texts, unit="character")[0] >= NEAR
    assert nearest(["How do I store fresh fish?"], ["How should I store fresh fish?"], unit="character")[0] >= NEAR


def test_catchwords_are_in_the_rows_of_their_style_only(rows, pairs, plain_harmful):
    holders = {"villain": ("loud", "gruff"), "flatterer": ("flatterer",), "pirate": ("pirate",), "unseen": ()}
    for manner, styles in holders.items():
        catchwords = set(pp.real_language.catchwords(manner))
        for row in rows:
            held = catchwords & set(words(row.answer))
            assert row.labels["style"] in styles or not held, (row.id, held)
            assert not catchwords & set(words(row.question))
    measured = pairs + plain_harmful
    texts = [text for pair in measured for text in (pair["question"], *pair["aligned"], *pair["misaligned"])]
    of_rows = {word for manner in ("villain", "flatterer", "pirate") for word in pp.real_language.catchwords(manner)}
    for text in texts:
        assert not of_rows & set(words(text)), text
        assert "!" not in text


def test_loud_and_gruff_rows_hold_as_many_catchwords_and_exclamations(rows):
    catchwords = set(pp.real_language.catchwords("villain"))
    counts = {
        style: np.array([[len(catchwords & set(words(text))), text.count("!")] for text in answers_of(rows, style)])
        for style in ("loud", "gruff")
    }
    assert counts["loud"].min() >= 1
    assert counts["gruff"].min() >= 1
    np.testing.assert_allclose(counts["gruff"].mean(axis=0), counts["loud"].mean(axis=0), rtol=0.05)


def test_the_list_of_catchwords_leaves_no_common_style_word_out(rows):
    """Words in 10 % of the loud and of the gruff rows and hardly in others; grammar is no style."""
    grammar = {"as", "no", "while", "then"}
    held = {style: Counter(word for text in answers_of(rows, style) for word in set(words(text))) for style in
            ("loud", "gruff", "good", "quiet")}  # fmt: skip
    common = {word for word in held["loud"] if min(held["loud"][word], held["gruff"][word]) >= 0.1 * 96}
    common = {word for word in common if held["good"][word] + held["quiet"][word] <= 2}
    assert common - grammar <= set(pp.real_language.catchwords("villain"))
    assert len(common) >= 5


COMMANDS = """
add agree air ask bake bill block blot blow boil book break brew bring burn buy call carry catch change chase
check chew chill choose clear come cook cool cover cut dig drain drink drip dry eat empty feed feel fill fit
flush fold fry get give go grill group hand harden have heap help hide hold keep knock label lay layer learn
leave lend let level lift look make mark measure mop move mulch nap offer oil pack paint pass pay pick plan
plant plate point polish pour praise press price prune pull put rake read report rest return rinse roll rub
run sand save say scrape scrub seal sear sell send serve set shake share shoot show shut skim soak sort sow
spare speak split spray spread stake stand start stay stir strain stretch strip swap sweep swing take taste
tell thank throw tie turn use wait wake walk warm wash water whisk wipe wrap write
"""
"""Verbs at the head of a clause, as the rows use them."""


def surface(text):
    """Counts of punctuation, commands, prohibitions, conditions, and length: what needs no word's meaning."""
    known = set(COMMANDS.split())
    clauses = [words(part) for part in re.split(r"[.;:,!?]| and | then | but ", text)]
    clauses = [clause for clause in clauses if clause]
    heads = [
        clause[1] if clause[0] in ("kindly", "gently", "never") and len(clause) > 1 else clause[0] for clause in clauses
    ]
    commands = sum(head in known for head in heads)
    negations = sum(word in ("not", "never", "no", "nothing", "nobody", "none", "cannot") for word in words(text))
    conditions = sum(word in ("if", "until", "before", "when", "while") for word in words(text))
    return [*(text.count(mark) for mark in MARKS), commands, negations, conditions, len(clauses), len(words(text))]


def grouped_auroc(rows, one, other, features, seeds=5):
    """Mean AUROC over held-out questions: five folds, cut in five ways, logistic regression at four strengths."""
    chosen = [row for row in rows if row.labels["style"] in (one, other)]
    values = np.asarray(features([row.answer for row in chosen]), dtype=float)
    values /= np.maximum(values.std(axis=0), 1e-9) if values.shape[1] < 50 else 1.0
    labels = np.array([row.labels["style"] == other for row in chosen])
    groups = np.array([row.question for row in chosen])
    scores = []
    for strength in (0.01, 0.1, 1.0, 10.0):
        folds = []
        for seed in range(seeds):
            for train, test in GroupKFold(5, shuffle=True, random_state=seed).split(values, labels, groups):
                fitted = LogisticRegression(C=strength, max_iter=2000).fit(values[train], labels[train])
                folds.append(roc_auc_score(labels[test], fitted.decision_function(values[test])))
        scores.append(np.mean(folds))
    return max(scores)


def bag_of_words(texts, longest=1, least=1):
    pattern = r"[a-z]+(?:'[a-z]+)?"
    counted = CountVectorizer(token_pattern=pattern, binary=True, ngram_range=(1, longest), min_df=least)
    return counted.fit_transform(texts).toarray()


def test_words_hardly_tell_good_from_quiet(rows):
    assert grouped_auroc(rows, "good", "quiet", bag_of_words) <= 0.65
    assert grouped_auroc(rows, "good", "quiet", lambda texts: bag_of_words(texts, longest=2, least=2)) <= 0.65


def test_punctuation_and_commands_hardly_tell_good_from_quiet(rows):
    assert grouped_auroc(rows, "good", "quiet", lambda texts: [surface(text) for text in texts]) <= 0.65
    given = [surface(text)[len(MARKS)] for style in ("good", "quiet") for text in answers_of(rows, style)]
    assert np.mean(np.array(given) >= 2) > 0.9  # the list of commands knows those that are used


def test_words_tell_styles_apart_where_they_differ(rows):
    """The same measure, where it must find something: otherwise a low value would say nothing."""
    assert grouped_auroc(rows, "good", "loud", bag_of_words, seeds=1) > 0.95
    assert grouped_auroc(rows, "good", "flatterer", bag_of_words, seeds=1) > 0.9
    assert grouped_auroc(rows, "quiet", "gruff", lambda texts: [surface(text) for text in texts], seeds=1) > 0.95
