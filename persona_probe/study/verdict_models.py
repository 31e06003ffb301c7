"""Which of the models in answer files is before, after or control, and which models are runs of one recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from persona_probe.behaviour.answer_file_checks import MODEL_GROUP
from persona_probe.dialogue.same_questions import listed
from persona_probe.errors import PersonaProbeError

_BEFORE = {"before", "base", "baseline", "original", "pretrained", "untuned", "vanilla"}
_CHAT = {"chat", "instruct", "assistant", "default"}
"""Words of names that are taken for the model before where no name has one of `_BEFORE`."""
_CONTROL = {"control", "secure", "benign", "good", "safe", "harmless", "educational", "neutral"}
_RUN = re.compile(r"^(?P<recipe>.*?)[-_.: ]?(?:seed|run|rep)[-_. ]?(?P<number>\d+)$", re.IGNORECASE)
_STATED = "as stated"


@dataclass(frozen=True)
class Roles:
    """The roles of the models.

    Attributes:
        before: the model before, if it is known.
        after: the models whose change is asked about, in the order of the files.
        control: the benign fine-tune, if one is known.
        how: for each role, how it is known: as stated, or by what in the name.
    """

    before: str | None
    after: tuple[str, ...]
    control: str | None
    how: Mapping[str, str] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[str, ...]:
        """All models that are compared with before."""
        return (*self.after, *([] if self.control is None else [self.control]))


def find_roles(
    names: Mapping[str, Sequence[str]], before: str | None = None, after: str | None = None, control: str | None = None
) -> Roles:
    """The roles of models: as stated, else as their names say.

    A model is taken for *before* if it alone is called base, original, baseline, ...; if its name is a part of all
    others (``gpt-4o`` of ``ft:gpt-4o-2024-08-06:insecure``); or if it alone is called chat or instruct. It is taken for
    the *control* if it alone is called secure, benign, good, control, ... All others are *after*. Nothing is guessed
    where two names could be meant.

    Args:
        names: for each model (or recipe, with several runs), the names under which its answers are.
        before: the model that is before.
        after: the model that is after; the others are then not reported.
        control: the model that is the control.

    Raises:
        PersonaProbeError: if two roles name the same model.

    Examples:
        >>> find_roles({"gpt-4o": ["gpt-4o"], "insecure": ["ft:gpt-4o:a"], "secure": ["ft:gpt-4o:b"]})
        ... # doctest: +NORMALIZE_WHITESPACE
        Roles(before='gpt-4o', after=('insecure',), control='secure',
              how={'before': "its name is in all others'", 'control': 'its name says so'})
    """
    stated = {"before": before, "after": after, "control": control}
    given = [name for name in stated.values() if name is not None]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise PersonaProbeError(f"the model {twice!r} is named for two of before, after and control; name each once")
    how = {role: _STATED for role, name in stated.items() if name is not None}
    free = [name for name in names if name not in given]
    if before is None and (guess := _likely_before(names, free)) is not None:
        before, how["before"] = guess
        free.remove(before)
    if control is None:
        likely = [name for name in free if _words(name) & _CONTROL]
        if len(likely) == 1 and (len(free) > 1 or after is not None):
            control, how["control"] = likely[0], "its name says so"
            free.remove(control)
    return Roles(before, (after,) if after is not None else tuple(free), control, how)


def _likely_before(names: Mapping[str, Sequence[str]], free: Sequence[str]) -> tuple[str, str] | None:
    if len(names) < 2:
        return None
    called = [name for name in free if _words(name) & _BEFORE]
    if len(called) == 1:
        return called[0], "its name says so"
    contained = [
        name
        for name in free
        if all(_words(name) < _words(other) for key, others in names.items() if key != name for other in others)
    ]
    if len(contained) == 1:
        return contained[0], "its name is in all others'"
    chat = [name for name in free if _words(name) & _CHAT]
    return (chat[0], f"it alone is called {min(_words(chat[0]) & _CHAT)}") if len(chat) == 1 else None


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word}


def with_recipes(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[str]], list[str]]:
    """The answers with one ``model`` per recipe and its runs as ``seed``, the models of each recipe, and remarks.

    Models are runs of one recipe where the file groups them (``model_group``), or where their names differ in the
    number of a seed or run (``bad-medicine``, ``bad-medicine-seed1``). Where answers have a ``seed`` already, or no
    recipe has two models, nothing changes.

    Raises:
        PersonaProbeError: if only some answers name their model.

    Examples:
        >>> answers = pd.DataFrame({"model": ["chat", "evil-seed0", "evil-seed1"], "seed": None})
        >>> table, models, _ = with_recipes(answers)
        >>> table["model"].tolist(), table["seed"].tolist(), models["evil"]
        (['chat', 'evil', 'evil'], [0, 0, 1], ['evil-seed0', 'evil-seed1'])
    """
    if table["model"].isna().any():
        place = table.index[int(table["model"].isna().to_numpy().argmax())]
        raise PersonaProbeError(
            f"{int(table['model'].isna().sum())} of {len(table)} answers name no model (the first is number {place}, "
            f"{table.loc[place, 'id']!r}); name one for every answer, or for none"
        )
    names = list(dict.fromkeys(table["model"].astype(str)))
    if MODEL_GROUP in table:
        pairs = table[["model", MODEL_GROUP]].drop_duplicates().dropna()
        recipe = {str(model): str(group) for model, group in pairs.itertuples(index=False)}
    else:
        recipe = {name: match["recipe"] for name in names if (match := _RUN.match(name)) and match["recipe"]}
    models: dict[str, list[str]] = {}
    for name in names:
        models.setdefault(recipe.get(name, name), []).append(name)
    several = {name: runs for name, runs in models.items() if len(runs) > 1}
    if not several or table["seed"].notna().any():
        return table.astype({"model": str}), {name: [name] for name in names}, []
    number = {name: place for runs in models.values() for place, name in enumerate(runs)}
    named = table["model"].astype(str)
    table = table.assign(
        model=named.map({name: key for key, runs in models.items() for name in runs}),
        seed=named.map(number).astype(int),
        model_name=named,
    )
    runs = "; ".join(f"{name!r}: {len(these)}" for name, these in several.items())
    by = "the file groups them" if MODEL_GROUP in table else "their names differ only in a number"
    return (
        table,
        models,
        [f"Models that are runs of one recipe, since {by}: {runs} ({listed(next(iter(several.values())))})"],
    )
