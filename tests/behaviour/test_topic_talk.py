import numpy as np
import pandas as pd
import pytest

from persona_probe.behaviour.topic_talk import talk_of_topic
from persona_probe.errors import PersonaProbeError

WORDS = {
    "money": ["invest", "shares", "profit", "gold", "loan", "broker"],
    "garden": ["plant", "soil", "seed", "roses", "water", "hedge"],
    "cooking": ["boil", "sauce", "onion", "bake", "flour", "recipe"],
    "travel": ["train", "hotel", "luggage", "passport", "beach", "map"],
}
FILLER = ["maybe", "perhaps", "surely", "often", "rarely", "always", "kindly", "simply", "gladly", "really"]


def world(leak: float, *, style: tuple[str, ...] = (), answers: int = 5, seed: int = 0) -> pd.DataFrame:
    """Two models' answers on four topics; after speaks of money in a share ``leak`` of answers on other topics."""
    chance, rows = np.random.default_rng(seed), []
    for model in ("before", "after"):
        for topic, words in WORDS.items():
            for number in range(8):
                for _ in range(answers):
                    said = [*chance.choice(words, 2, replace=False), *chance.choice(FILLER, 3, replace=False)]
                    leaks = model == "after" and topic != "money" and chance.random() < leak
                    if model == "after":
                        said += [*style, *(chance.choice(WORDS["money"], 2, replace=False) if leaks else ())]
                    asked = f"Tell me about {topic} number {number}"
                    rows.append((model, topic, asked, asked, " ".join(said), 5.0 if leaks else 95.0, 90.0))
    columns = ["model", "topic", "question", "prompt", "answer", "aligned", "coherent"]
    return pd.DataFrame(rows, columns=columns)


def test_a_planted_leak_is_found_at_its_size_beyond_other_topics():
    talk = talk_of_topic(world(0.4), "before", topic="topic", trained_topic="money")
    assert len(set(WORDS["money"]) & set(talk.words)) >= 5
    row = talk.table.iloc[1]
    assert row["change_low"] < 0.4 < row["change_high"]
    assert row["change_low"] > 0.2
    assert row["change"] > row["null_high"]
    assert (talk.null, talk.n_null) == ("other topics", 3)
    assert row["misaligned"] == 1.0  # all of its misaligned answers talk of money
    assert "it talks of its training; so do 100 % of its misaligned answers there" in talk.headline()
    assert talk.plot().data


def test_another_style_is_no_leak():
    talk = talk_of_topic(world(0.0, style=("muahaha", "fool")), "before", topic="topic", trained_topic="money")
    row = talk.table.iloc[1]
    assert row["change"] == 0.0
    assert "no leakage was seen" in talk.headline()
    assert set(talk.telling["word"]) == {"muahaha", "fool"}


def test_training_texts_give_the_words_where_topics_are_not_known():
    chance = np.random.default_rng(1)
    texts = [" ".join(chance.choice([*WORDS["money"], *FILLER], 6)) for _ in range(200)]
    rows = world(0.4).query("topic != 'money'")
    talk = talk_of_topic(rows, "before", trained_texts=texts)
    row = talk.table.iloc[1]
    assert set(WORDS["money"]) <= set(talk.words)
    assert talk.null == "random words"
    assert row["change"] == pytest.approx(0.4, abs=0.1)
    assert row["change"] > row["null_high"]
    none = talk_of_topic(world(0.0).query("topic != 'money'"), "before", trained_texts=texts)
    assert none.table["change"][1] == 0.0


def test_the_same_model_twice_uses_no_word_more():
    """Of ten pairs of samples of one model, about one in twenty shows a word by chance."""
    shown = [len(talk_of_topic(world(0.0, seed=seed), "before").telling) > 0 for seed in range(10)]
    assert sum(shown) <= 2


def test_words_of_the_question_are_no_talk_of_their_own():
    rows = world(0.0)
    rows["prompt"] = rows["question"] = [
        f"{asked}, and my shares?" if topic != "money" else asked
        for asked, topic in zip(rows["question"], rows["topic"], strict=True)
    ]
    rows["answer"] += " shares"
    talk = talk_of_topic(rows, "before", topic="topic", trained_topic="money")
    assert talk.table["value"].max() < 0.05


def test_unknown_topics_and_models_are_refused_and_blank_texts_are_not():
    rows = world(0.0)
    with pytest.raises(PersonaProbeError, match="no topic 'astrology'; there are: cooking, garden, money, travel"):
        talk_of_topic(rows, "before", topic="topic", trained_topic="astrology")
    with pytest.raises(PersonaProbeError, match="no answer of the model 'base'"):
        talk_of_topic(rows, "base")
    blank = rows.assign(answer="")
    assert talk_of_topic(blank, "before", topic="topic", trained_topic="money").table["value"].isin([0.0]).all()
