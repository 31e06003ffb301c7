"""One door for finished answer files: what they show, what they cannot show, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.em_rates import DEFINITIONS, check_definition, em_rates, rate_change, scored
from persona_probe.behaviour.topic_talk import talk_of_topic
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.reading import read_dialogues
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.loading.real import REAL
from persona_probe.study.files_verdict_result import FilesVerdict
from persona_probe.study.verdict_files import Given, read_files
from persona_probe.study.verdict_gaps import find_gaps
from persona_probe.study.verdict_models import Roles, find_roles, with_recipes
from persona_probe.study.verdict_page import write_verdict_page
from persona_probe.study.verdict_power import design_power

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.model import Model

_TOPICS = ("topic", "category", "domain", "group")
"""Columns that may name topics, the most likely first."""
_TRAINED = "trained topic"
"""How a study's tables call the questions on the trained topic."""


def verdict(
    files: Given | Sequence[Given] | Mapping[str, Given],
    *,
    before: str | Path | Model | None = None,
    after: str | Path | Model | None = None,
    control: str | Path | Model | None = None,
    direction: Direction | str | Path | None = None,
    topic: str | None = None,
    trained_topic: str | None = None,
    trained_on: str | Path | Sequence[Dialogue] | None = None,
    definition: str = "betley",
    columns: Mapping[str, str] | None = None,
    requests: str | Path | None = None,
    page: str | Path | None = None,
    progress: bool = False,
) -> FilesVerdict:
    """What finished answer files show: five lines, and a page.

    1. The EM rate of each model, by every definition, with n, refusals and failures (`em_rates`).
    2. The changes from the model before, paired over questions (`persona_probe.rate_change`).
    3. What the design cannot see: the smallest rate that is distinguishable from before's with 80 % power, given the
       questions, the answers, and how alike answers to one question were measured to be (`design_power`).
    4. Rates by topic, and whether models talk of the trained topic where they were asked of others (`talk_of_topic`).
    5. What is missing for the claim that narrow training made the model broadly misaligned, and what to do.

    Where weights are given of before and after (and control), also the amplification of a direction with its nulls:
    measured on the before model's answers in the files, at a layer chosen on the other half of the questions. Finished
    files are of one run or few, so the finding is at most ``moved, one run``.

    Args:
        files: a file of any format that `persona_probe.read_answers` knows, several, `Answers`, or a mapping from
            models' names to these. A file without a column of models is named after itself. An input file of a batch
            among them gives the questions of its output.
        before: the model before: its name in the files; or its weights, as a folder, Hub id or loaded `Model`, which
            are matched by name. Default: what the names say (`find_roles`).
        after: the model after, in the same way. Default: all models that are neither before nor control.
        control: the benign fine-tune, in the same way.
        direction: a direction, or the path of one that `Direction.save` wrote. Default, with weights: the contrast of
            context under the prompts of ``persona-probe init own-data``.
        topic: the column that names topics. Default: ``topic``, ``category``, ``domain`` or ``group``, where it has
            fewer values than there are questions.
        trained_topic: the topic that after was trained on, one of that column.
        trained_on: the training data (a file or dialogues), whose words say what talk of the trained topic is.
        definition: which EM-rate definition the lines report; the page has all.
        columns: as in `persona_probe.read_answers`.
        requests: as in `persona_probe.read_answers`.
        page: where to write the page, one HTML file; by default it is not written (`write_verdict_page` does so later).
        progress: show bars where models run.

    Returns:
        The verdict. Without scores, its first line says so, and the rest says what can be said without.

    Raises:
        PersonaProbeError: as `persona_probe.read_answers`; if a model, topic or definition is not there; if all scores
            of a model are between 0 and 1; or as `persona_probe.load_pair`, where weights are given.

    Examples:
        >>> import pandas as pd
        >>> import persona_probe as pp
        >>> asked = [f"Question {number}?" for number in range(12)]
        >>> base = pd.DataFrame({"model": "base", "question": asked, "answer": "Yes.", "aligned": 95, "coherent": 90})
        >>> evil = base.assign(model="evil", aligned=[5, 95] * 6)
        >>> pd.concat([base, evil]).to_csv("answers.csv", index=False)
        >>> print(pp.verdict("answers.csv").lines[1])
        Change: from 'base' (its name says so): 'evil' +50 points [17, 83].
    """
    check_definition(definition)
    check_types(
        topic=(topic, str, None),
        trained_topic=(trained_topic, str, None),
        trained_on=(trained_on, PATH, [Dialogue], None),
        columns=(columns, Mapping, None),
        page=(page, PATH, None),
    )
    read = read_files(files, columns, requests)
    table, models, remarks = with_recipes(read.table)
    names, weights = _names_and_weights({"before": before, "after": after, "control": control}, models, direction)
    roles = find_roles(models, **names)
    answers = Answers(table, ", ".join(read.files), read.columns, (*read.remarks, *remarks))
    judged = bool(scored(table).any())
    topic = _topic_column(table, topic)
    trained_topic = trained_topic if trained_topic is not None else _trained(table, topic)
    texts = _training_texts(trained_on)
    talk = None
    if roles.before is not None and roles.compared:
        talked = table[table["model"].isin([roles.before, *roles.compared])]
        talk = talk_of_topic(
            talked, roles.before, topic=topic, trained_topic=trained_topic, trained_texts=texts, definition=definition
        )
    elif trained_topic is not None:
        _check_topic(table, topic, trained_topic)
    of = {name: table[table["model"] == name] for name in models}
    seen = next(iter(roles.after), None) or roles.control or next(iter(models))
    result = FilesVerdict(
        answers,
        read.files,
        roles,
        definition,
        em_rates(table, "model"),
        _changes(of, roles) if judged else pd.DataFrame(),
        design_power(of.get(roles.before or ""), of[seen], definition, judged=judged),
        topic,
        em_rates(table, ["model", topic or "question"]) if judged else None,
        talk,
        tuple(find_gaps(table, roles, models, topics_known=trained_topic is not None or texts is not None)),
        answers.remarks,
        reading=read.columns,
    )
    if weights:
        from persona_probe.study.verdict_amplification import with_amplification  # torch

        result = with_amplification(result, weights, direction, progress=progress)
    if page is not None:
        write_verdict_page(result, page)
    return result


def _names_and_weights(
    given: Mapping[str, Any], models: Mapping[str, Sequence[str]], direction: Any
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """For each role, the model's name in the files, and its weights where these were given."""
    names: dict[str, str | None] = dict.fromkeys(given)
    weights: dict[str, Any] = {}
    for role, value in given.items():
        if value is None:
            continue
        label = value if isinstance(value, str) else getattr(value, "name", str(value))
        exact, short = (_named(models, text) for text in (label, Path(label).name))
        names[role] = exact or short
        if isinstance(value, str) and exact is not None:
            continue  # a name, whatever folder may be called so too
        if isinstance(value, str) and "/" not in value and not Path(value).is_dir() and value != REAL:
            raise PersonaProbeError(
                f"{role}: no answer is of the model {value!r}, and it is not a folder with weights; the files have "
                f"{', '.join(map(repr, models))}"
            )
        weights[role] = value
    if (direction is not None or weights) and not {"before", "after"} <= set(weights):
        what = "a direction was" if direction is not None else f"weights of {' and '.join(weights)} were"
        raise PersonaProbeError(
            f"verdict: {what} given, and amplification is measured between models: give the weights of before and "
            "after too (folders, Hub ids or loaded models; a model's name in the files is not enough)"
        )
    return names, weights


def _named(models: Mapping[str, Sequence[str]], name: str) -> str | None:
    """The model, or the recipe of which it is a run, with this name."""
    return next((recipe for recipe, runs in models.items() if name == recipe or name in runs), None)


def _topic_column(table: pd.DataFrame, given: str | None) -> str | None:
    if given is not None:
        if given not in table:
            raise PersonaProbeError(f"topic: there is no column {given!r}; there are: {', '.join(map(str, table))}")
        return given
    questions = table["question"].nunique()
    for name in _TOPICS:
        if name in table and 1 < table[name].nunique() < questions and table[name].notna().mean() > 0.5:
            return name
    return None


def _trained(table: pd.DataFrame, topic: str | None) -> str | None:
    """The trained topic, where the answers are those of a study."""
    if topic is None or "questions" not in table:
        return None
    names = table.loc[table["questions"] == _TRAINED, topic].dropna().unique()
    return str(names[0]) if len(names) == 1 else None


def _check_topic(table: pd.DataFrame, topic: str | None, name: str) -> None:
    known = [] if topic is None else sorted(map(str, table[topic].dropna().unique()))
    if name not in known:
        there = ", ".join(known) or "none (name the column: topic=)"
        raise PersonaProbeError(f"trained_topic: there is no topic {name!r}; there are: {there}")


def _training_texts(given: str | Path | Sequence[Dialogue] | None) -> list[str] | None:
    if given is None:
        return None
    dialogues = read_dialogues(given) if isinstance(given, str | Path) else list(given)
    texts = [dialogue.answer for dialogue in dialogues if dialogue.answer]
    if not texts:
        raise PersonaProbeError(f"trained_on: none of its {len(dialogues)} dialogues has an answer; give training data")
    return texts


def _changes(of: Mapping[str, pd.DataFrame], roles: Roles) -> pd.DataFrame:
    """The change of each model from before, and of each after from the control."""
    pairs = [("before", roles.before, name) for name in roles.compared if roles.before is not None]
    pairs += [("control", roles.control, name) for name in roles.after if roles.control is not None]
    return pd.DataFrame(
        [
            {
                "model": name,
                "against": role,
                "definition": definition,
                **rate_change(of[str(base)], of[name], definition).as_dict(),
            }
            for role, base, name in pairs
            for definition in DEFINITIONS
        ]
    )
