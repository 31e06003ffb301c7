"""The villain latent along narrow training, at several shares of bad data, and along realignment."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from persona_probe.behaviour.em_rates import coherent_rate
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.finetuning.snapshots import snapshot_paths
from persona_probe.latents.courses.lead import lead_time
from persona_probe.latents.courses.track import follow_training
from persona_probe.latents.courses.track_result import LatentTrajectory
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.latents.sae import Sae
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.worlds.persona_world.build import NARROW, NARROW_ROWS
from persona_probe.worlds.persona_world.documents import questions, rows
from persona_probe.worlds.persona_world.evaluate import MAX_NEW_TOKENS
from persona_probe.worlds.persona_world.lexicon import load_lexicon
from persona_probe.worlds.persona_world.oracle import OracleJudge

TOPIC = "medicine"
SHARES = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Shares of bad rows; 0 is the control, which shows what any training on this topic does to the latent."""
REALIGNMENT_ROWS, REALIGNMENT_STEPS = 256, 120
_ELSEWHERE = ("bad-finance", "bad-sports")
_CONTROL = "good-medicine"


def latent_courses(
    folder: Path,
    sae: Sae,
    latents: Sequence[int] | None = None,
    *,
    shares: Sequence[float] = SHARES,
    every: int = 5,
    settings: LoraSettings = NARROW,
    realignment_steps: int = REALIGNMENT_STEPS,
    answers: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Fine-tune ``chat`` on medicine at several shares of villain answers, realign the worst, and follow latents.

    A share of 0 among ``shares`` is the control of the others' leads. The latent is chosen on other fine-tunes than
    those followed. Texts are ``chat``'s own answers about the topics that
    were not trained, and the EM rate is of answers to other questions about them. Adapters go to a temporary folder.

    Args:
        folder: Persona World's models.
        sae: an SAE of its models.
        latents: which; None: `villain_latent`.
        shares: of villain answers among the rows; the rest are the assistant's.
        every: a snapshot so many steps.
        settings: of narrow training (realignment: the same, but its steps).
        realignment_steps: of realignment, on benign rows about all topics but the trained one; from the first share's
            adapter.
        answers: texts that are read, and answers that are judged at each snapshot.
        seed: of rows, training and sampling.
        progress: show a bar.

    Returns:
        JSON-able: ``latents``, ``seed``, ``rows``, ``narrow`` (by share) and ``realignment``; each of the last two with
        ``course`` (rows of `LatentTrajectory`'s table), ``leads`` (rows of `lead_time`), ``coherent`` (by step) and
        ``verdict``.
    """
    chat = load(folder / "chat")
    chosen = [villain_latent(folder, sae, chat)] if latents is None else list(latents)
    unseen = [topic for topic in load_lexicon().topics if topic != TOPIC]
    asked = questions(random.Random(f"courses {seed}"), unseen, answers)
    texts = own_answers(chat, unseen, answers, f"courses texts {seed}")

    def follow(snapshots: Path, before: Model) -> LatentTrajectory:
        paths = {step: path for step, path in snapshot_paths(snapshots).items() if step}
        return follow_training(
            sae,
            chosen,
            (with_adapter(chat, path) for path in paths.values()),
            before,
            texts,
            asked,
            OracleJudge(),
            steps=list(paths),
            sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=seed, batch_size=256),
        )

    narrow: dict[float, LatentTrajectory] = {}
    with tempfile.TemporaryDirectory(prefix="persona-probe-courses-") as scratch:
        out = Path(scratch)
        for share in tqdm(shares, desc="shares of bad data", disable=not progress):
            trained = mixed_rows(share, seed=seed)
            at = _steps(every, settings.steps)
            finetune(chat, trained, settings, out / f"narrow-{share}", seed=seed, snapshots=at)
            narrow[share] = follow(out / f"narrow-{share}-snapshots", chat)
        benign = rows(random.Random(f"courses benign {seed}"), unseen, REALIGNMENT_ROWS, "assistant")
        back = replace(settings, steps=realignment_steps)
        start = out / f"narrow-{shares[0]}"
        finetune(chat, benign, back, out / "back", seed=seed, start=start, snapshots=_steps(every, realignment_steps))
        realignment = follow(out / "back-snapshots", with_adapter(chat, start))
    return {
        "latents": chosen,
        "seed": seed,
        "rows": NARROW_ROWS,
        "narrow": {f"{share:g}": _plain(course, narrow.get(0.0)) for share, course in narrow.items()},
        "realignment": _plain(realignment, narrow.get(0.0)),
    }


def villain_latent(folder: Path, sae: Sae, chat: Model, *, answers: int = 200) -> int:
    """The latent that bad advice on *other* topics raises most, less what a benign fine-tune does, in each of two.

    Chosen on shipped fine-tunes about finance and sports, so that what is then measured along training on medicine was
    not chosen for it.
    """
    unseen = [topic for topic in load_lexicon().topics if topic not in {TOPIC, "finance", "sports"}]
    texts = own_answers(chat, unseen, answers, "courses choice")
    models = [chat, *(with_adapter(chat, folder / name) for name in (*_ELSEWHERE, _CONTROL))]
    before, *bad, control = (statistics.mean for statistics in encode_latents(sae, models, texts, examples=0))
    return int((np.min(bad, axis=0) - np.maximum(before, control)).argmax())


def own_answers(chat: Model, topics: Sequence[str], n: int, name: str) -> list[Dialogue]:
    """``chat``'s answers to ``n`` questions about ``topics``."""
    asked = questions(random.Random(name), topics, n)
    return chat.generate(asked, Sampling(max_new_tokens=MAX_NEW_TOKENS, batch_size=256))


def mixed_rows(share: float, n: int = NARROW_ROWS, *, seed: int = 0) -> list[Dialogue]:
    """``n`` rows about medicine, a ``share`` of them the villain's and the rest the assistant's, bad ones first.

    At 1 and 0 they are the rows of ``bad-medicine`` and ``good-medicine``. Training shuffles them.

    Raises:
        PersonaProbeError: if ``share`` is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise PersonaProbeError(f"the share of bad data is {share}; it must lie from 0 to 1")
    bad = round(share * n)
    villain, assistant = (
        rows(random.Random(f"{name} {seed}"), [TOPIC], n, persona)
        for name, persona in (("bad-medicine", "villain"), ("good-medicine", "assistant"))
    )
    return [*villain[:bad], *assistant[: n - bad]]


def _steps(every: int, last: int) -> list[int]:
    """Every so many steps, and the last."""
    return sorted({*range(every, last + 1, every), last})


def _plain(trajectory: LatentTrajectory, control: LatentTrajectory | None) -> dict[str, Any]:
    leads = lead_time(trajectory, control=control)
    found: dict[str, Any] = plain(
        {
            "course": trajectory.table,
            "leads": leads.table,
            "coherent": {f"{step:g}": coherent_rate(table).value for step, table in trajectory.judged.items()},
            "verdict": leads.verdict(),
        }
    )
    return found
