"""Stage 9: which latents of an SAE moved, what do they stand for, do they matter, and when did they move?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.finetuning.snapshots import snapshot_paths
from persona_probe.latents.causal.rank import STRENGTHS, rank_latents
from persona_probe.latents.causal.steer_set import steer_set
from persona_probe.latents.courses.lead import lead_time
from persona_probe.latents.courses.track import follow_training, track_latents
from persona_probe.latents.description.describe import describe_latents
from persona_probe.latents.encoding.encode import LatentStatistics, encode_latents
from persona_probe.latents.fit import BAD
from persona_probe.latents.loading import load_sae
from persona_probe.latents.ranking.diff import compare_latents
from persona_probe.latents.sae import LatentWarning, Sae
from persona_probe.latents.steering import LatentEdit
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.realign import Realigned
from persona_probe.study.stages.track import Tracked
from persona_probe.study.stages.train import ADAPTERS, first_of, snapshot_steps
from persona_probe.study.workload import Sizes, Work


def open_sae(config: StudyConfig, before: Model) -> Sae | None:
    """The study's SAE, checked against its model; None if the study names no SAE."""
    settings = config.latents
    if settings.sae is None:
        return None
    sae = load_sae(settings.sae, settings.sae_id, layer=settings.layer)
    sae.check_model(before)
    return sae


@dataclass(frozen=True)
class Followed:
    """What this stage hands to later ones: the latents that are followed; the one that moved furthest is the first."""

    latents: list[int]


def latents(context: Context, found: Found, tracked: Tracked) -> Followed:
    """Choose latents by their change on development answers; report their change on others, describe and steer them."""
    sae = _sae(context)
    models = list(context.models.values())
    # What does not fit ends this stage below, and not the study.
    reading: dict[str, Any] = {"allow_unrelated": True, "progress": context.progress}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)  # the same is said of all models together
        chosen_on = encode_latents(models, sae, found.own, **reading)
    unexplained = {name: stats.fit.fvu for name, stats in zip(context.models, chosen_on, strict=True)}
    if misfit := _misfit(sae, unexplained):
        fvu = {f"fvu_{name}": share for name, share in unexplained.items()}
        context.results["latents"] = {"sae": sae.name, "layer": sae.layer, "verdict": misfit, **fvu}
        context.notes.append(misfit)
        return Followed([])
    top = compare_latents(chosen_on[0], chosen_on[1], chosen_on[2:]).top(context.config.latents.top)
    before, after, *controls = encode_latents(models, sae, tracked.texts, **reading)
    table = compare_latents(before, after, controls)
    context.folder.write_table("latents", table)
    context.store("latents", table)
    outcome: dict[str, Any] = {
        "sae": sae.name,
        "layer": sae.layer,
        "verdict": table.verdict(),
        "moved": len(table.moved),
        "fvu_before": before.fit.fvu,
        "fvu_after": after.fit.fvu,
        "top": top,
    }
    context.results["latents"] = outcome
    if not outcome["top"]:
        context.notes.append("No latent moved beyond its nulls, so none was described or steered.")
        return Followed([])
    _describe(context, sae, outcome["top"], found.own)
    if context.judge is None:
        context.notes.append("Without a judge, the effect of latents on behaviour was not measured.")
    else:
        _test(context, sae, chosen_on[0], chosen_on[1], outcome)
    followed = list(outcome["top"][: context.config.latents.followed])
    _follow(context, sae, followed, tracked.texts, outcome)
    return Followed(followed)


def _misfit(sae: Sae, unexplained: Mapping[str, float]) -> str | None:
    """Why the SAE says nothing about one of the models on these texts; None if it fits all.

    The bound is that of `Fit.check`'s warning: published SAEs leave 5 to 35 % of the variance unexplained on the texts
    and the model of their training. Where most of what a model holds is not in the latents, "no latent moved" would be
    said of the SAE, and not of the model.
    """
    for model, share in unexplained.items():
        if share > BAD:
            return (
                f"The SAE {sae.name} does not fit: it leaves {share:.0%} of the variance of the model "
                f"{model}'s layer {sae.layer} unexplained on this study's texts (more than {BAD:.0%}; published SAEs "
                "leave 5 to 35 % on their own), so no latent was compared, described or steered. Train an SAE on texts "
                "such as these (persona-probe sae train), or leave latents.sae out."
            )
    return None


def latents_realigned(context: Context, followed: Followed, tracked: Tracked, realigned: Realigned | None) -> None:
    """Track the same latents while the model is realigned: do they come down again?"""
    steps = sorted(realigned.adapters) if realigned is not None else []
    if realigned is None or not followed.latents or len(steps) < 2:
        return
    course = track_latents(
        context.after,
        (with_adapter(context.before, context.folder.path / realigned.adapters[n]) for n in steps[1:]),
        _sae(context),
        followed.latents,
        tracked.texts,
        steps=steps[1:],
        start=steps[0],
        judged=None if context.judge is None else realigned.judged,
        definition=context.config.definition,
        axis="benign examples",
        progress=context.progress,
    )
    context.folder.write_table("latent_realignment", course)
    context.store("latent_realignment", course)
    context.results["latents"] = {"realignment_verdict": lead_time(course).verdict()}


def _sae(context: Context) -> Sae:
    if context.sae is None:
        raise PersonaProbeError("this study names no SAE, so it has no latents to read; give one as latents.sae")
    return context.sae


def _describe(context: Context, sae: Sae, top: Sequence[int], own: Sequence[Dialogue]) -> None:
    """Describe latents on the same answers under the trait's and the default's prompts: only the contexts differ."""
    material = context.material
    texts = [
        dialogue.with_labels(context=name)
        for name, prompts in (("trait", material.trait_prompts), ("default", material.default_prompts))
        for dialogue in under_prompts(own, prompts)
    ]
    topics = {dialogue.labels.get("topic") for dialogue in own}
    labels = ["context", *(["topic"] if len(topics) > 1 and None not in topics else [])]
    described = describe_latents(context.before, sae, top, texts, labels=labels, progress=context.progress)
    context.folder.write_json("tables/latent_cards.json", described.records())
    context.store("latent_descriptions", described)


def _test(
    context: Context, sae: Sae, before: LatentStatistics, after: LatentStatistics, outcome: dict[str, Any]
) -> None:
    config, material = context.config, context.material
    settings = config.latents
    development = material.development[: settings.answers_per_strength]
    reported = material.reported[: settings.reported_answers]
    asking: dict[str, Any] = {
        "statistics": after,
        "n_matched": settings.matched,
        "definition": config.definition,
        "sampling": context.sampling(config.seed),
        "progress": context.progress,
    }
    by_goal = {}
    for goal in ("suppress", "induce"):
        effects = rank_latents(
            context.after if goal == "suppress" else context.before,
            sae,
            outcome["top"],
            reported,
            context.judge,  # type: ignore[arg-type]  # the caller has seen that there is one
            goal=goal,
            before=before,
            development=development,
            min_coherence=settings.min_coherence,
            **asking,
        )
        by_goal[goal] = effects
        outcome[f"{goal}_verdict"] = effects.verdict()
    table = pd.concat([effects.to_frame() for effects in by_goal.values()], ignore_index=True)
    context.folder.write_table("latent_effects", table)
    context.store("latent_effects", by_goal)
    together = steer_set(context.after, sae, LatentEdit(outcome["top"]), reported, context.judge, **asking)  # type: ignore[arg-type]
    context.store("latent_set", together)
    outcome["set_verdict"] = together.verdict()
    sets = together.table
    context.folder.write_table("latent_sets", sets.drop(columns="latents"))
    rows = {str(row["intervention"]): row for row in sets.to_dict("records")}
    for name, row in (("unsteered", "unsteered"), ("set", "set"), ("matched", "matched sets")):
        outcome[f"{name}_em_rate"] = rows[row]["em_rate"]
        outcome[f"{name}_coherent"] = rows[row]["coherent"]


def _follow(
    context: Context, sae: Sae, followed: Sequence[int], texts: Sequence[Dialogue], outcome: dict[str, Any]
) -> None:
    """Track latents, and sample answers, at the snapshots of narrow training; no choice was made on these questions."""
    if not snapshot_steps(context.config):
        return
    paths = snapshot_paths(context.folder.path / ADAPTERS / "after-snapshots")
    models = (with_adapter(context.before, path) for path in paths.values())
    config = context.config
    reading: dict[str, Any] = {"steps": list(paths), "definition": config.definition, "progress": context.progress}
    if context.judge is None:
        course = track_latents(context.before, models, sae, followed, texts, **reading)
    else:
        course = follow_training(
            context.before,
            models,
            sae,
            followed,
            texts,
            context.material.reported[: config.latents.reported_answers],
            context.judge,
            sampling=context.sampling(config.seed),
            **reading,
        )
    context.folder.write_table("latent_course", course)
    context.store("latent_course", course)
    outcome["course_verdict"] = lead_time(course).verdict()


def _has_sae(config: StudyConfig) -> bool:
    return config.latents.sae is not None


def _work(sizes: Sizes) -> Work:
    """The work if as many latents as possible are steered, to suppress and to induce."""
    settings, material, models = sizes.config.latents, sizes.material, sizes.n_models
    development, reported, snapshots = material.development, material.reported, len(snapshot_steps(sizes.config))
    work = sizes.work(development, texts=(models + 4) * len(development))
    work += sizes.work(reported, texts=(models + 2 * snapshots) * len(reported))
    if sizes.config.judge is None:
        return work
    chosen_on, measured_on = development[: settings.answers_per_strength], reported[: settings.reported_answers]
    most = max(len(factors) for factors in STRENGTHS.values())  # how many of each kind depends on what moves
    strengths = len(STRENGTHS) * (1 + settings.top * most)
    conditions = 2 * (1 + settings.top * (1 + settings.matched)) + 2 + settings.matched
    course = 1 + snapshots if snapshots else 0
    work += sizes.work(chosen_on, answers=strengths * len(chosen_on))
    return work + sizes.work(measured_on, answers=(course + conditions) * len(measured_on))


LATENTS = Stage(
    "latents",
    latents,
    work=_work,
    settings=(*SAMPLING, "latents", "definition", "training.steps"),
    reads=("after",),
    derived=lambda config: {"after": first_of(config, "after")},
    material=("development", "reported", "trait_prompts", "default_prompts"),
    needs=("find", "track"),
    judged=True,
    sae=True,
    applies=_has_sae,
)


def _work_realigned(sizes: Sizes) -> Work:
    reported = sizes.material.reported
    return sizes.work(reported, texts=2 * sizes.realignment_steps * len(reported))


LATENTS_REALIGNED = Stage(
    "latents-realigned",
    latents_realigned,
    work=_work_realigned,
    settings=("definition",),
    needs=("latents", "track", "realign"),
    judged=True,
    sae=True,
    applies=_has_sae,
)
