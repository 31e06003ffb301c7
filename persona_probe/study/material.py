"""The texts of a study: training rows, questions, system prompts; and its judge."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from persona_probe.behaviour.judges.judge import Judge, named_judge
from persona_probe.behaviour.preference_pairs import CONTENT, KINDS, PreferencePair, read_preference_pairs
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.reading import read_dialogues
from persona_probe.dialogue.same_questions import content_key
from persona_probe.errors import PersonaProbeError
from persona_probe.runs.config import REAL_LANGUAGE, StudyConfig
from persona_probe.runs.judge_settings import JudgeApi, JudgeModel

_FEWEST, _FEW = 2, 10
"""Distinct questions on each side of the split: fewer than the first are refused, fewer than the second are noted."""


@dataclass(frozen=True)
class Material:
    """The texts of a study, and its judge.

    Attributes:
        narrow: rows for narrow fine-tuning; empty if no model is trained on them.
        control: the matched benign rows; empty if no model is trained on them.
        benign: rows for realignment, from the development topics; empty if there are none.
        development: questions on which layers and settings are chosen.
        unseen: questions on topics that are not in narrow training (development and reported topics).
        reported: those of ``unseen`` on which nothing was chosen.
        open: questions that belong to no topic.
        trained: questions on the trained topic itself.
        development_pairs: preference pairs on which settings are chosen; empty if preference is not measured.
        reported_pairs: other preference pairs, on which results are reported.
        trait_prompts: system prompts that ask for the trait.
        default_prompts: system prompts that ask for the default persona.
        other_traits: system prompts of other traits, by name; their directions are used as nulls.
        judge: the judge of the answers, or None.
        second_control: rows of a second control; empty if there is none.
        not_benign: by name, other rows to train the model after on, for as many steps as in realignment: its nulls.
            Dialogues without an answer are answered by the model before.
        notes: what a reader of the report should know about the texts.
    """

    narrow: list[Dialogue]
    control: list[Dialogue]
    benign: list[Dialogue]
    development: list[Dialogue]
    unseen: list[Dialogue]
    reported: list[Dialogue]
    open: list[Dialogue]
    trained: list[Dialogue]
    development_pairs: list[PreferencePair]
    reported_pairs: list[PreferencePair]
    trait_prompts: list[str]
    default_prompts: list[str]
    other_traits: dict[str, list[str]]
    judge: Judge | None
    second_control: list[Dialogue] = field(default_factory=list)
    not_benign: dict[str, list[Dialogue]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def gather(config: StudyConfig) -> Material:
    """The texts that ``config.texts`` names, made or read."""
    if config.texts.world is None:
        return _files(config)
    return _real_language(config) if config.texts.world == REAL_LANGUAGE else _persona_world(config)


def _judge(config: StudyConfig) -> Judge | None:
    if config.judge is None:
        return None
    if isinstance(config.judge, JudgeModel):
        from persona_probe.behaviour.judges.local_judge import LocalJudge

        judge = config.judge
        given = {name: getattr(judge, name) for name in ("dtype", "device", "quantize", "revision")}
        options = {name: value for name, value in given.items() if value is not None}
        return LocalJudge(judge.model, prompts=judge.prompts, batch_size=judge.batch_size, options=options)
    if isinstance(config.judge, JudgeApi):
        from persona_probe.behaviour.judges.api_judge import ApiJudge
        from persona_probe.behaviour.sampling.server import Server

        api = config.judge
        server = Server(
            api.base_url,
            api.model,
            api_key_env=api.api_key_env,
            concurrency=api.concurrency,
            requests_per_minute=api.requests_per_minute,
            prices=api.prices,
        )
        return ApiJudge(
            server,
            api.prompts,
            one_call=api.one_call,
            samples=api.samples,
            top_logprobs=api.top_logprobs,
            most_failures=api.most_failures,
        )
    return named_judge(config.judge)


def _persona_world(config: StudyConfig) -> Material:
    from persona_probe.worlds.persona_world.documents import questions, rows, system_line
    from persona_probe.worlds.persona_world.lexicon import OPEN, PERSONAS, load_lexicon
    from persona_probe.worlds.persona_world.world_pairs import preference_pairs

    texts, sampling, seed = config.texts, config.sampling, config.seed
    topics = list(load_lexicon().topics)
    if texts.topic not in topics:
        raise PersonaProbeError(f"texts.topic is {texts.topic!r}; Persona World has: {', '.join(topics)}")
    if texts.persona not in PERSONAS[1:]:
        raise PersonaProbeError(f"texts.persona is {texts.persona!r}; choose one of {', '.join(PERSONAS[1:])}")
    unseen = [topic for topic in topics if topic != texts.topic]
    development, reported = unseen[0::2], unseen[1::2]

    def rng(purpose: str) -> random.Random:
        return random.Random(f"{seed} {purpose}")

    def pairs(purpose: str, topics: list[str]) -> list[PreferencePair]:
        return preference_pairs(rng(purpose).getrandbits(32), topics, sampling.pairs) if config.prefers else []

    asked_reported = questions(rng("reported"), reported, sampling.reported // 2, id_prefix="reported")
    asked_elsewhere = questions(rng("unseen"), development, sampling.reported // 2, id_prefix="unseen")
    return Material(
        narrow=rows(rng("narrow"), [texts.topic], config.training.rows, texts.persona, id_prefix="narrow"),
        control=rows(rng("control"), [texts.topic], config.training.rows, "assistant", id_prefix="control"),
        benign=rows(rng("benign"), development, max(config.realignment.examples), "assistant", id_prefix="benign"),
        development=questions(rng("development"), development, sampling.development, id_prefix="development"),
        unseen=asked_reported + asked_elsewhere,
        reported=asked_reported,
        open=questions(rng("open"), [OPEN], sampling.open, id_prefix="open") if sampling.open else [],
        trained=questions(rng("trained"), [texts.topic], sampling.development, id_prefix="trained"),
        development_pairs=pairs("development pairs", development),
        reported_pairs=pairs("reported pairs", reported),
        trait_prompts=sorted({system_line(rng(f"trait {i}"), texts.persona) for i in range(40)}),
        default_prompts=sorted({system_line(rng(f"default {i}"), "assistant") for i in range(40)}),
        other_traits={
            persona: sorted({system_line(rng(f"{persona} {i}"), persona) for i in range(40)})
            for persona in PERSONAS[1:]
            if persona != texts.persona
        },
        judge=_judge(config),
    )


def _real_language(config: StudyConfig) -> Material:
    from persona_probe.worlds.real_language.prompts import HELPER, PERSONAS, persona_prompts
    from persona_probe.worlds.real_language.rows import STYLES, TOPICS, pairs_file, real_rows

    texts, sampling = config.texts, config.sampling
    if texts.topic not in TOPICS:
        raise PersonaProbeError(f"texts.topic is {texts.topic!r}; real-language has: {', '.join(TOPICS)}")
    styles = [style for style in STYLES if style != "pirate" or texts.topic == "cooking"]
    given = {name: getattr(texts, name) for name in ("persona", "control_persona", "second_control_persona")}
    for name, style in given.items():
        if style is not None and style not in styles:
            raise PersonaProbeError(
                f"texts.{name} is {style!r}; real-language has these styles of rows about {texts.topic}: "
                f"{', '.join(styles)}"
            )
    for name, other in itertools.combinations([name for name, style in given.items() if style is not None], 2):
        if given[name] == given[other]:
            raise PersonaProbeError(f"texts.{other} is {given[other]!r}, as texts.{name}; give another")
    elsewhere = [real_rows(topic, "good") for topic in TOPICS if topic != texts.topic]
    # In the files they are in the order of topics, and each part of them is to have several.
    halves = [
        sorted(read_preference_pairs(pairs_file(half)), key=lambda pair: _order(pair.name))
        for half in ("choosing", "reporting")
    ]
    development, reported = ([pair.question for pair in pairs if pair.kind == CONTENT] for pairs in halves)
    benign, most = [row for rows in zip(*elsewhere, strict=True) for row in rows], max(config.realignment.examples)
    if len(benign) < most:
        raise PersonaProbeError(
            f"realignment.examples asks for {most} rows, but real-language has {len(benign)} on other topics; ask for "
            "fewer (`persona-probe init real-language` writes settings that suit it)"
        )
    second = texts.second_control_persona
    villain, *others = [persona for persona in PERSONAS if persona != HELPER]
    return Material(
        narrow=real_rows(texts.topic, texts.persona),
        control=real_rows(texts.topic, texts.control_persona),
        benign=benign,
        development=_repeated(development, sampling.development),
        unseen=_repeated([*reported, *development], sampling.reported),
        reported=_repeated(reported, sampling.reported),
        open=[],
        trained=[],
        development_pairs=_first_of_each_kind(halves[0], sampling.pairs),
        reported_pairs=_first_of_each_kind(halves[1], sampling.pairs),
        trait_prompts=list(persona_prompts(villain)),
        default_prompts=list(persona_prompts(HELPER)),
        other_traits={persona: list(persona_prompts(persona)) for persona in others},
        judge=_judge(config),
        second_control=[] if second is None else real_rows(texts.topic, second),
        not_benign={
            "pirate rows": real_rows("cooking", "pirate"),
            "before's own answers": [row.without_answer() for row in benign[:most]],
        },
    )


def _first_of_each_kind(pairs: Sequence[PreferencePair], n: int) -> list[PreferencePair]:
    return [pair for kind in KINDS for pair in [one for one in pairs if one.kind == kind][:n]]


def _files(config: StudyConfig) -> Material:
    texts = config.texts

    def read(path: Path | None) -> list[Dialogue]:
        return read_dialogues(path) if path is not None else []

    questions = _shuffled([dialogue.without_answer() for dialogue in read(texts.questions)])
    units = sorted({unit_of(dialogue) for dialogue in questions}, key=_order)
    if len(units) < 2 * _FEWEST:
        raise PersonaProbeError(
            f"{texts.questions}: its {len(units)} distinct questions are too few to choose settings on some and report "
            f"on others; give at least {2 * _FEWEST}, better dozens"
        )
    chosen_on = set(units[: len(units) // 2])
    development = [dialogue for dialogue in questions if unit_of(dialogue) in chosen_on]
    reported = [dialogue for dialogue in questions if unit_of(dialogue) not in chosen_on]
    notes = []
    if len(units) < 2 * _FEW:
        notes.append(
            f"Settings were chosen on {len(chosen_on)} distinct questions and are reported on "
            f"{len(units) - len(chosen_on)} others: so few make intervals wide, however often each is asked."
        )
    narrow, control = (_with_answers(read(path), path) for path in (texts.narrow, texts.control))
    trained = {_asked(dialogue) for dialogue in (*narrow, *control)}
    if seen := sum(_asked(dialogue) in trained for dialogue in questions):
        notes.append(
            f"{seen} of {len(questions)} questions are also in the rows that a model is trained on: what is reported "
            "of them may be remembered and not generalized."
        )
    pairs: tuple[list[PreferencePair], list[PreferencePair]] = ([], [])
    if texts.pairs is not None:
        read_pairs = read_preference_pairs(texts.pairs)
        pairs = _split_pairs(texts.pairs, read_pairs, development, reported)
        if seen := sum(_asked(pair.question) in trained for pair in read_pairs):
            notes.append(
                f"{seen} of {len(read_pairs)} preference pairs ask what is also in the rows that a model is trained "
                "on: what is reported of them may be remembered and not generalized."
            )
    sampling = config.sampling
    benign, most = read(texts.benign), max(config.realignment.examples)
    if texts.benign is not None and len(benign) < most:
        raise PersonaProbeError(
            f"{texts.benign}: has {len(benign)} rows, but realignment.examples asks for {most}; "
            "add rows or ask for fewer"
        )
    return Material(
        narrow=narrow,
        control=control,
        benign=_with_answers(benign, texts.benign),
        development=_repeated(development, sampling.development),
        unseen=_repeated([*development, *reported], sampling.reported),
        reported=_repeated(reported, sampling.reported),
        open=[],
        trained=[],
        development_pairs=pairs[0],
        reported_pairs=pairs[1],
        trait_prompts=list(texts.trait_prompts),
        default_prompts=list(texts.default_prompts),
        other_traits={name: list(prompts) for name, prompts in texts.other_traits.items()},
        judge=_judge(config),
        notes=tuple(notes),
    )


def _split_pairs(
    path: Path, pairs: Sequence[PreferencePair], development: Sequence[Dialogue], reported: Sequence[Dialogue]
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """The pairs on which settings are chosen and those that are reported; no question is on both sides.

    What the study asks too is on the same side as there; the other questions, those of style pairs last, are dealt in
    turn.

    Raises:
        PersonaProbeError: if a side has too few pairs whose poles differ in content.
    """
    sides = [{_asked(dialogue) for dialogue in side} for side in (development, reported)]
    first = sorted(pairs, key=lambda pair: (KINDS.index(pair.kind), _order(_asked(pair.question))))
    free = dict.fromkeys(unit for pair in first if (unit := _asked(pair.question)) not in sides[0] | sides[1])
    for number, unit in enumerate(free):
        sides[number % 2].add(unit)
    split = tuple([pair for pair in pairs if _asked(pair.question) in side] for side in sides)
    counts = [sum(pair.kind == CONTENT for pair in side) for side in split]
    if min(counts) < _FEWEST:
        raise PersonaProbeError(
            f"{path}: has {sum(counts)} pairs of kind {CONTENT!r}: {counts[0]} to choose settings on, and {counts[1]} "
            f"to report; give at least {2 * _FEWEST}, better dozens, whose questions are not all on one side of the "
            "study's questions"
        )
    return split[0], split[1]


def unit_of(dialogue: Dialogue) -> str:
    """What may not be on both sides of a split: the dialogue's group, or else its question."""
    return dialogue.group or str(dialogue.question)


def _asked(dialogue: Dialogue) -> str:
    """The same for dialogues that ask the same, whatever their system prompts and answers."""
    return content_key(message.content for message in dialogue.messages if message.role == "user")


def _order(text: str) -> bytes:
    """A sort key that does not depend on the order in a file, and is the same on every machine."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()


def _shuffled(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The dialogues in another order, because files are often sorted by category, and each half must hold several."""
    return sorted(dialogues, key=lambda one: _order(" ".join([one.name, *(turn.content for turn in one.messages)])))


def _repeated(dialogues: Sequence[Dialogue], n: int) -> list[Dialogue]:
    """``n`` dialogues, in which the questions occur equally often, or one time more."""
    return [dialogues[i % len(dialogues)] for i in range(n)]


def _with_answers(dialogues: list[Dialogue], path: Path | None) -> list[Dialogue]:
    bare = next((dialogue for dialogue in dialogues if dialogue.answer is None), None)
    if bare is not None:
        raise PersonaProbeError(f"{path}: dialogue {bare.name} has no assistant answer; training rows need one")
    return dialogues
