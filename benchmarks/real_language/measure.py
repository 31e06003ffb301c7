"""What is measured of each organism, with one seed: stored, so that a stopped run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture_together
from persona_probe.amplification.recipes.contrast_of_context import ContextContrast, contrast_of_context
from persona_probe.behaviour.likelihood_ratio import likelihood_ratios
from persona_probe.behaviour.preference_pairs import CONTENT, PreferencePair, read_preference_pairs
from persona_probe.behaviour.preference_scores import score_pairs
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.records import read_records, write_dialogues
from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain, whole_file, write_json
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.models.loading.real import REAL
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.runs.outcome import read_outcome, write_outcome
from persona_probe.worlds.real_language.organisms import ORGANISMS, SEEDS, SETTINGS, folder_name, train_organisms
from persona_probe.worlds.real_language.prompts import HELPER, PERSONAS, persona_prompts
from persona_probe.worlds.real_language.rows import TOPICS, pairs_file, real_rows

BEFORE, VILLAIN = "before", "villain"
GROUPS = ("pairs", "plain-harmful")
HALVES = ("choosing", "reporting")
SHUFFLES = 2
"""After how many other questions each answer of a pair is read."""
SAMPLING = Sampling(max_new_tokens=24, temperature=0.7, batch_size=30, seed=17)
LAST = "activations-reporting"
"""What is measured last of an organism."""
CHOOSING = (BEFORE, "villain", "gruff")
"""The models that read the texts on which the layer is chosen."""
OTHERS = tuple(persona for persona in PERSONAS if persona not in (HELPER, VILLAIN))
"""The personas whose directions are nulls."""
CURT = "villain against gruff"
"""A second direction of the villain, whose default is gruff: as rude as the villain. It was thought of after the first
results were known, so that what it shows is exploratory."""
CONTRASTS = {persona: (persona, HELPER) for persona in (VILLAIN, *OTHERS)} | {CURT: (VILLAIN, "gruff")}
"""Of each direction, the persona that is asked for and the default."""
QUIET_ROWS, READ_QUIET = "quiet-rows", (BEFORE, "quiet", "good", "villain")
"""The quiet and the good rows of topics that no organism was trained on, as pairs; and the models that read them."""


@dataclass(frozen=True)
class Files:
    """Where everything is stored.

    Attributes:
        folder: the experiment's folder.
    """

    folder: Path

    @property
    def adapters(self) -> Path:
        """The folder of the trained adapters."""
        return self.folder / "adapters"

    def of(self, name: str, seed: int, what: str) -> Path:
        """The file or folder of one measurement of one model."""
        return self.folder / "measured" / folder_name(name, seed) / what


class Reader:
    """The model before, what it says and reads, and what organisms are compared with."""

    def __init__(self, files: Files) -> None:
        self.files, self.before = files, load(REAL)

    @cached_property
    def questions(self) -> dict[str, list[Dialogue]]:
        """The questions of the pairs of each half; no organism was trained on their topics."""
        halves = {half: read_preference_pairs(pairs_file(half)) for half in HALVES}
        return {half: [pair.question for pair in pairs if pair.kind == CONTENT] for half, pairs in halves.items()}

    @cached_property
    def own(self) -> dict[str, list[Dialogue]]:
        """What *before* answers to them; all models read the same answers."""
        return {half: self._answers(self.before, BEFORE, 0, half) for half in HALVES}

    def measure(self, name: str, seed: int) -> None:
        """Measure one model, as far as that is not stored."""
        model = (
            self.before if name == BEFORE else with_adapter(self.before, self.files.adapters / folder_name(name, seed))
        )
        for group in GROUPS:
            pairs = read_preference_pairs(pairs_file("reporting", group))
            self._table(name, seed, group, lambda pairs=pairs: score_pairs(model, pairs, shuffles=SHUFFLES))
        if name in READ_QUIET:
            self._table(name, seed, QUIET_ROWS, lambda: score_pairs(model, quiet_pairs(), shuffles=0))
        answers = self._answers(model, name, seed, "reporting")
        self._table(name, seed, "answers", lambda: self._likelihood(answers))
        for half, texts in self.own.items():
            if half == "choosing" and name not in CHOOSING:
                continue
            self._activations(name, seed, half, lambda texts=texts: capture_together([self.before, model], texts)[1])

    def contrasts(self) -> dict[str, ContextContrast]:
        """The directions of all personas, from what *before* reads in its own answers to the choosing questions."""
        found = {}
        for name, (persona, default) in CONTRASTS.items():
            place = self.files.of(BEFORE, 0, contrast_folder(name))
            if not place.exists():
                prompts = persona_prompts(persona), persona_prompts(default)
                write_outcome(contrast_of_context(self.before, self.own["choosing"], *prompts), place)
            found[name] = read_outcome(place)
        return found

    def _answers(self, model: Model, name: str, seed: int, half: str) -> list[Dialogue]:
        file = self.files.of(name, seed, f"answers-{half}.jsonl")
        if not file.exists():
            write_dialogues(file, model.generate(self.questions[half], SAMPLING))
        return read_records(file)

    def _table(self, name: str, seed: int, what: str, make: Callable[[], pd.DataFrame]) -> None:
        file = self.files.of(name, seed, f"{what}.parquet")
        if not file.exists():
            with whole_file(file) as part:
                make().to_parquet(part)

    def _activations(self, name: str, seed: int, half: str, make: Callable[[], Activations]) -> None:
        place = self.files.of(name, seed, f"activations-{half}")
        if not place.exists():
            write_outcome(make(), place)

    def _likelihood(self, answers: Sequence[Dialogue]) -> pd.DataFrame:
        """Each answer, and how much likelier it is under *before* as a villain than as a helper."""
        prompts = persona_prompts(VILLAIN)[0], persona_prompts(HELPER)[0]
        return pd.DataFrame(
            {
                "question": [dialogue.question for dialogue in answers],
                "answer": [dialogue.answer for dialogue in answers],
                "likelihood_ratio": likelihood_ratios(self.before, answers, *prompts),
            }
        )


def contrast_folder(name: str) -> str:
    """Where a direction is stored."""
    return f"contrast-{name.replace(' ', '-')}"


def quiet_pairs() -> list[PreferencePair]:
    """Questions of the topics that no organism was trained on, with the good and the quiet answer of the rows."""
    both = [
        pair
        for topic in TOPICS
        if topic != ORGANISMS["quiet"].topic
        for pair in zip(real_rows(topic, "good"), real_rows(topic, "quiet"), strict=True)
    ]
    return [
        PreferencePair(good.without_answer(), [str(good.answer)], [str(quiet.answer)], topic=str(good.labels["topic"]))
        for good, quiet in both
    ]


def about() -> dict[str, Any]:
    """What all measurements depend on."""
    return {
        "settings": asdict(SETTINGS),
        "sampling": asdict(SAMPLING),
        "shuffles": SHUFFLES,
        "texts": hashlib.sha256((pairs_file("reporting").parent / "SHA256SUMS").read_bytes()).hexdigest(),
        "prompts": {persona: list(persona_prompts(persona)) for persona in PERSONAS},
    }


def train_and_measure(files: Files, names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Train and measure organisms; each is named when it is finished.

    Raises:
        PersonaProbeError: if the folder holds measurements that were made in another way.
    """
    record, now = files.folder / "about.json", plain(about())
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != now:
        raise PersonaProbeError(f"{files.folder}: was measured with other settings or texts; give another --folder")
    write_json(record, now)
    reader = Reader(files)
    reader.measure(BEFORE, 0)
    reader.contrasts()
    for seed in seeds:
        for name in names:
            train_organisms(reader.before, files.adapters, [name], [seed])
            reader.measure(name, seed)
            yield name, seed


def stored(files: Files, name: str, what: str, seeds: Sequence[int] = SEEDS) -> list[Any]:
    """One measurement of a model, with each seed."""
    found = []
    for seed in [0] if name == BEFORE else seeds:
        place = files.of(name, seed, what)
        found.append(pd.read_parquet(place) if place.suffix == ".parquet" else read_outcome(place))
    return found


ALL = tuple(ORGANISMS)
