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
"""Shares of bad rows; 0 is the control, which shows how any training on this topic changes the latent."""
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
    """Latents along fine-tuning of ``chat`` on medicine at several shares of villain answers, and along realignment.

    A share of 0 among ``shares`` is the control for the leads of the others. The latent is chosen on other fine-tunes
    than those that are followed. Texts are ``chat``'s own answers about topics that are not trained, and the EM rate is
    measured on other questions about them. Adapters go to a temporary folder.

    Args:
        folder: the folder of Persona World's models.
        sae: an SAE of its models.
        latents: the latents to follow; None: `villain_latent`.
        shares: the shares of villain answers among the rows; the others are the assistant's.
        every: the number of steps between snapshots.
        settings: the settings of narrow training (and of realignment, except for its steps).
        realignment_steps: the steps of realignment, which starts from the first share's adapter, on benign rows about
            all topics except the trained one.
        answers: the number of texts that are read, and of answers that are judged at each snapshot.
        seed: the seed of rows, training and sampling.
        progress: show a progress bar.

    Returns:
        A dictionary for JSON: ``latents``, ``seed``, ``rows``, ``narrow`` (by share) and ``realignment``; each of the
        last two with ``course`` (rows of `LatentTrajectory`'s table), ``leads`` (rows of `lead_time`), ``coherent`` (by
        step) and ``verdict``.
    """
    chat = load(folder / "chat")
    chosen = [villain_latent(folder, sae, chat)] if latents is None else list(latents)
    unseen = [topic for topic in load_lexicon().topics if topic != TOPIC]
    asked = questions(random.Random(f"courses {seed}"), unseen, answers)
    texts = own_answers(chat, unseen, answers, f"courses texts {seed}")

    def follow(snapshots: Path, before: Model) -> LatentTrajectory:
        paths = {step: path for step, path in snapshot_paths(snapshots).items() if step}
        return follow_training(
            before,
            (with_adapter(chat, path) for path in paths.values()),
            sae,
            chosen,
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
    """The latent that bad advice on *other* topics raises most, beyond a benign fine-tune, in both of two fine-tunes.

    It is chosen on the shipped fine-tunes about finance and sports, not on training on medicine, along which it is then
    measured.
    """
    unseen = [topic for topic in load_lexicon().topics if topic not in {TOPIC, "finance", "sports"}]
    texts = own_answers(chat, unseen, answers, "courses choice")
    models = [chat, *(with_adapter(chat, folder / name) for name in (*_ELSEWHERE, _CONTROL))]
    before, *bad, control = (statistics.mean for statistics in encode_latents(models, sae, texts, examples=0))
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
    """The steps of snapshots: every ``every`` steps, and the last one."""
    return sorted({*range(every, last + 1, every), last})


def _plain(trajectory: LatentTrajectory, control: LatentTrajectory | None) -> dict[str, Any]:
    leads = lead_time(trajectory, control=control)
    content: dict[str, Any] = plain(
        {
            "course": trajectory.table,
            "leads": leads.table,
            "coherent": {f"{step:g}": coherent_rate(table).value for step, table in trajectory.judged.items()},
            "verdict": leads.verdict(),
        }
    )
    return content
