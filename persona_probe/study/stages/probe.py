"""Stage 5: a linear probe for misaligned answers, tested on topics it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.embeddings import embed
from persona_probe.probes.cross_validation import cross_validate_features, cross_validate_probe
from persona_probe.probes.lexical import bag_of_tokens
from persona_probe.study.context import Context
from persona_probe.study.stages.find import Found

_FEWEST_GROUPS = 5
_SAME = 0.01
"""AUROC difference below which a baseline counts as equal to the probe."""


def probe(context: Context, found: Found, layer: int) -> None:
    """Probe the after model's own answers, misaligned against aligned, by topic, beside its baselines.

    The baselines: counts of words, means of the answers' token embeddings (what the words alone know), shuffled labels.

    The reported layer is the one chosen for the direction, so that no layer is chosen on the probe's test topics.
    """
    if found.answers is None:
        return
    activations, misaligned, dialogues = found.answers
    named = activations.table["group"].fillna(activations.table["question"])
    groups = named.astype(str).to_numpy()
    holding = [len(set(groups[mask])) for mask in (misaligned, ~misaligned)]
    if min(holding) < _FEWEST_GROUPS:
        context.notes.append(
            f"Misaligned answers stand in {holding[0]} topics and aligned ones in {holding[1]}; a probe that is tested "
            f"on topics it never saw needs both in at least {_FEWEST_GROUPS}, so none was trained."
        )
        return
    seed = context.config.seed
    scores = cross_validate_probe(activations, misaligned, groups, seed=seed).table
    shuffled = np.random.default_rng(seed).permutation(misaligned)
    null = cross_validate_probe(activations, shuffled, groups, seed=seed).table
    embedded = embed(context.after, dialogues).values[:, 0]
    embeddings = cross_validate_features(embedded, misaligned, groups, seed=seed)
    words = cross_validate_features(bag_of_tokens([d.answer or "" for d in dialogues]), misaligned, groups, seed=seed)
    rows: list[dict[str, Any]] = []
    for name, table in (("probe", scores), ("shuffled labels", null)):
        rows += [
            {str(key): value for key, value in row.items()} | {"baseline": name} for row in table.to_dict("records")
        ]
    for name, baseline in (("token embeddings", embeddings), ("bag of tokens", words)):
        rows += [{**baseline, "layer": number, "baseline": name} for number in activations.layers]
    table = pd.DataFrame(rows).rename(columns={"value": "auroc"})
    table = table.assign(chosen=(table["layer"] == layer) & (table["baseline"] == "probe"))
    context.folder.write_table("probe", table)
    chosen = table[table["chosen"]].iloc[0]
    if embeddings["value"] is not None and float(embeddings["value"]) >= chosen["auroc"] - _SAME:
        context.notes.append(
            "The mean token embedding of the answers separates misaligned from aligned as well as the probe does "
            f"(AUROC {float(embeddings['value']):.3f} and {chosen['auroc']:.3f} on unseen topics): the probe need not "
            "read more than what the model has learned of the words."
        )
    context.results["probe"] = {
        "layer": layer,
        "auroc_unseen_topics": chosen["auroc"],
        "low": chosen["low"],
        "high": chosen["high"],
        "n": chosen["n"],
        "bag_of_tokens": words["value"],
        "token_embeddings": embeddings["value"],
        "shuffled_labels": float(null.loc[null["layer"] == layer, "value"].iloc[0]),
    }
