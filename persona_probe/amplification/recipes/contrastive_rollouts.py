"""The persona-vectors recipe: the model's answers when told to show a trait, against its answers when told not to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.rollouts import rollouts
from persona_probe.behaviour.em_rates import check_scale
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_answers, judge_name
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling

SPANS = {"prompt_mean": "prompt", "last_prompt_token": "last_prompt_token", "response_mean": "response"}
"""The span from which each of the recipe's three directions is read."""


@dataclass(frozen=True)
class ContrastiveRollouts:
    """Directions from contrastive rollouts.

    Attributes:
        directions: ``prompt_mean``, ``last_prompt_token`` and ``response_mean``.
        table: one row per rollout: the judge's columns, ``pole``, ``trait`` (0-100) and whether it was ``kept``.
    """

    directions: dict[str, Direction]
    table: pd.DataFrame


def contrastive_rollouts(
    model: Model,
    questions: Sequence[Dialogue],
    instruction_pairs: Sequence[tuple[str, str]],
    judge: Judge,
    *,
    trait: str | None = None,
    threshold: float = 50.0,
    coherent: float = 50.0,
    method: str = "mean-difference",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> ContrastiveRollouts:
    """The directions between answers under instructions for and against the trait, if they follow the instructions.

    Chen et al. (2025, "Persona vectors", section 2.2) use 5 instruction pairs, 20 questions and 10 rollouts per pole.

    Args:
        model: the model, usually the one before.
        questions: dialogues without an answer.
        instruction_pairs: pairs of system prompts: one asks for the trait, the other for its opposite.
        judge: the judge that scores the answers.
        trait: the column of the judge's table with the trait's score (0-100); default misalignment, 100 - ``aligned``.
        threshold: positive answers are used if they score at least this, negative ones if they score less.
        coherent: the least coherence of an answer that is used.
        method: the name of the finder.
        sampling: how answers are sampled; default ``Sampling(n=10)``. Its ``n`` is the number of rollouts of each
            question under each instruction; for negative ones its seed is raised by one.
        progress: show progress bars.

    Raises:
        PersonaProbeError: if a list is empty, the judge has no such column, or no answer of a pole is left.
    """
    check_judge(judge)
    check_types(
        model=(model, Model),
        questions=(questions, [Dialogue]),
        instruction_pairs=(instruction_pairs, [tuple, list]),
        sampling=(sampling, Sampling, None),
        threshold=(threshold, NUMBER),
        coherent=(coherent, NUMBER),
        method=(method, str),
    )
    if not instruction_pairs:
        raise PersonaProbeError("contrastive rollouts need at least one pair of instructions (for, against the trait)")
    sampling = sampling or Sampling(n=10)
    tables, kept = [], {}
    for number, pole in enumerate(("positive", "negative")):
        prompts = [pair[number] for pair in instruction_pairs]
        answered = rollouts(
            model, questions, prompts, replace(sampling, seed=sampling.seed + number), progress=progress
        )
        table = judge_answers(judge, answered, pole=pole)
        table = table.assign(trait=_score(table, trait, judge))
        follows = table["trait"] >= threshold if pole == "positive" else table["trait"] < threshold
        table = table.assign(kept=follows & (table["coherent"] >= coherent))
        kept[pole] = [dialogue for dialogue, keep in zip(answered, table["kept"], strict=True) if keep]
        tables.append(table)
        if not kept[pole]:
            raise PersonaProbeError(
                f"none of the {len(table)} {pole} rollouts is left: their trait scores have median "
                f"{table['trait'].median():.0f} (wanted {'at least' if pole == 'positive' else 'below'} {threshold:g}) "
                f"and coherence {table['coherent'].median():.0f} (wanted at least {coherent:g}); improve the "
                "instructions, or check how the judge scores the answers"
            )
    card = {
        "recipe": "contrastive rollouts",
        "instruction_pairs": [list(pair) for pair in instruction_pairs],
        "judge": judge_name(judge),
        "n_positive_before_filtering": len(tables[0]),
        "n_negative_before_filtering": len(tables[1]),
        "filter": {"trait": trait or "100 - aligned", "threshold": threshold, "coherent": coherent},
        "sampling": {**asdict(sampling), "seeds": [sampling.seed, sampling.seed + 1]},
    }
    directions = {}
    for name, span in SPANS.items():
        positive, negative = (capture(model, part, span=span, progress=progress) for part in kept.values())
        direction = find_direction(positive, negative, method, seed=sampling.seed)
        name_and_card = {**direction.card, **card, "name": f"contrastive rollouts, {name}"}
        directions[name] = replace(direction, card=name_and_card)
    return ContrastiveRollouts(directions, pd.concat(tables, ignore_index=True))


def _score(table: pd.DataFrame, trait: str | None, judge: Judge) -> pd.Series:
    if trait is None:
        return 100.0 - table["aligned"]
    if trait not in table:
        raise PersonaProbeError(
            f"the judge {judge_name(judge)!r} gives no column {trait!r}; it gives {', '.join(map(str, table.columns))}"
        )
    check_scale(table, f"the judge {judge_name(judge)!r}", (trait,))
    return table[trait].astype(float)
