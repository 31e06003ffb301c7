from __future__ import annotations

from typing import Any

import pytest

from persona_probe.report.figure_list import figures
from persona_probe.report.topics.all_topics import TOPICS, summary_lines

PARTS = [part for topic in TOPICS for part in topic.parts]


def test_the_summary_gives_the_sentences_of_the_page_in_its_order(results: dict[str, Any]) -> None:
    lines = summary_lines(results)
    assert max(map(len, lines)) <= 110
    labels = [line[:20].strip() for line in lines if line[:20].strip()]
    assert labels == [
        "EM rate",
        "who speaks",
        "directions",
        "amplification",
        "finders",
        "probe",
        "probe, same words",
        "steering",
        "realignment",
    ]
    text = " ".join(line[20:] for line in lines)
    for part in PARTS:
        assert not part.label or all(sentence in text for sentence in part.sentences(results)), part.id
    assert "Induce: clamp at 1" in text


def test_a_long_sentence_is_broken_behind_its_label(results: dict[str, Any]) -> None:
    results["finders"]["verdict"] = "word " * 60
    lines = summary_lines(results)
    start = next(number for number, line in enumerate(lines) if line.startswith("finders"))
    assert all(line.startswith(" " * 20 + "word") for line in lines[start + 1 : start + 3])


def test_what_a_study_lacks_is_left_out_of_the_summary(results: dict[str, Any]) -> None:
    whole = len(summary_lines(results))
    for key in ("behaviour", "finders", "realign"):
        assert len(summary_lines({name: value for name, value in results.items() if name != key})) < whole
    assert summary_lines({"judge": "x"}) == []
    assert summary_lines({"steer": {"induce_verdict": None, "suppress_verdict": 3}, "realign": []}) == []


def test_without_a_judge_the_summary_says_so(unjudged: tuple[Any, dict[str, Any]]) -> None:
    first, *others = summary_lines(unjudged[1])
    assert first == "EM rate             No judge scored the answers, so no EM rate is reported."
    assert any("projection from +2.54 SD" in line for line in others)


def test_what_a_terminal_would_obey_is_not_in_the_summary(results: dict[str, Any]) -> None:
    results["personas"]["verdict"] = "The \x1b[31mvillain\u202e"
    text = "\n".join(summary_lines(results))
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("amplified 2.9 SD", "Amplified 2.9 SD."),
        ("Down.", "Down."),
    ],
)
def test_every_verdict_is_shown_as_a_sentence(verdict: str, sentence: str) -> None:
    (part,) = (part for part in PARTS if part.id == "amplification")
    assert part.sentences({"amplification": {"verdict": verdict}}) == [sentence]


def test_a_figure_belongs_to_one_topic_and_a_section_to_one_place() -> None:
    more = [kind for topic in TOPICS for kind in topic.more_figures]
    names = [kind.name for kind in (*(part.figure for part in PARTS), *more)]
    assert len(names) == len(set(names)) == len(figures)
    assert len({part.id for part in PARTS}) == len(PARTS)
    assert all(part.figure.tables and part.figure.caption for part in PARTS)
    assert not any(kind.tables for kind in more)
