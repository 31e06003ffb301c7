"""The caption of each figure: what it shows, n, interval and null, with this run's numbers in it."""

from __future__ import annotations

import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.figures.amplification import NULLS
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.steering import STARTS, reported_rows
from persona_probe.figures.text import count_range, counted, is_number, percent, visible
from persona_probe.report.by_question import rates_by_question, reported_answers, unit_of
from persona_probe.report.facts import Facts, facts_of
from persona_probe.report.readings import read_number
from persona_probe.runs.record import RunRecord


def table_of(run: RunRecord, name: str) -> pd.DataFrame:
    """The table, or an empty one: the figures say what they miss."""
    return run.tables.get(name, pd.DataFrame())


def span_of(table: pd.DataFrame, column: str, unit: str) -> str:
    """How many things each estimate rests on: ``n = 192 to 1,104 answers an estimate``."""
    if column not in table or table[column].dropna().empty:
        return "n unknown"
    return f"n = {count_range(table[column])} {unit}"


def definition_of(run: RunRecord) -> str:
    """The name of the EM-rate definition that the run reports."""
    name = str(run.results.get("definition") or "betley")
    return name if name in DEFINITIONS else "betley"


def chosen_layer(run: RunRecord) -> int | None:
    """The layer that the run chose on development topics, if it says."""
    layer = read_number(run.results, "amplification", "layer")
    return None if layer is None else int(layer)


def formula_of(name: str) -> str:
    """A definition as its paper writes it."""
    return DEFINITIONS[name].formula.replace("<=", "≤").replace(">=", "≥")


def _fine_tuned_null(facts: Facts) -> str:
    """What a fine-tune's numbers stand beside."""
    if not facts.control:
        return "The null is the model before; there is no control, so what any fine-tuning does is not told apart."
    how = " (the same fine-tuning on harmless answers)" if facts.trained and facts.control_given is None else ""
    return f"Nulls: the model before and the benign control{how}."


def summary(run: RunRecord) -> str:
    """The main figure's: of each panel that the run can fill."""
    facts = facts_of(run)
    opened = " and on open questions" if facts.opened else ""
    told = []
    if run.judge is not None:
        told.append(f"(a) EM rate ({definition_of(run)}) of each model {facts.on_asked}{opened}.")
    told.append(
        "(b) Shift of the projection on the persona direction by layer; grey: where 97.5 % of random directions stay."
    )
    if not table_of(run, "steering").empty:
        told.append(
            "(c) EM rate and coherence under steering on held-out questions, beside random directions moved by the "
            "same displacement."
        )
    if facts.realigned:
        rate = "EM rate and projection" if run.judge else "Projection"
        told.append(f"(d) {rate} after fine-tuning on n benign examples.")
    n = f"; {span_of(_rates(run, trained=False), 'n', 'judged answers a rate in (a)')}" if run.judge else ""
    told.append(f"Whiskers and bands are 95 % intervals{n}.")
    if not facts.control:
        told.append("There is no control.")
    if run.judge is None:
        told.append(f"{facts.unjudged}, and rates need one: what shows rates alone is left empty.")
    return " ".join(told)


def _rates(run: RunRecord, *, trained: bool = True) -> pd.DataFrame:
    """The rates that are drawn: those of the run's definition, with those on the trained topic or without."""
    table = table_of(run, "em_rates")
    if not {"definition", "questions"} <= set(table):
        return table
    own = table[table["definition"] == definition_of(run)]
    return own if trained else own[own["questions"] != "trained topic"]


def em_rates(run: RunRecord) -> str:
    """The EM rates'."""
    facts = facts_of(run)
    n, name = span_of(_rates(run), "n", "judged answers a row"), definition_of(run)
    filled = f"; filled: {facts.on_asked.removeprefix('on ')}" if facts.opened else ""
    return (
        f"Share of misaligned answers (definition: {name}, {formula_of(name)}) by model and question set{filled}. "
        f"Whiskers: 95 % intervals over questions; {n}. {_fine_tuned_null(facts)}"
    )


def em_by_question(run: RunRecord) -> str:
    """That of EM rates by topic or question."""
    column, name, facts = unit_of(run), definition_of(run), facts_of(run)
    if column is None:
        return ""
    unit, over = ("topic", "questions") if column == "group" else ("question", "answers")
    rates = rates_by_question(run)
    n = f"n = {count_range(rates.loc[rates['definition'] == name, 'n'])} judged answers a row"
    return (
        f"EM rate (definition: {name}, {formula_of(name)}) of each model by {unit}, {facts.on_asked}; "
        f"the highest rates first. Whiskers: 95 % intervals over {over}; {n}. {_fine_tuned_null(facts)}"
    )


def answers_scatter(run: RunRecord) -> str:
    """That of all answers by their two scores."""
    name, rows, facts = definition_of(run), reported_answers(run), facts_of(run)
    return (
        f"Every judged answer {facts.on_asked} (n = {counted(len(rows))} in all) by its two scores; "
        f"equal scores are one mark, whose area is their number. Dashed: the lines of the definition {name}, "
        f"{formula_of(name)}. Shares of each quadrant with 95 % intervals over questions. {_fine_tuned_null(facts)}"
    )


def finder_cosines(run: RunRecord) -> str:
    """That of cosines between finders."""
    table = table_of(run, "finder_cosines")
    count = len({*table["first"], *table["second"]}) if {"first", "second"} <= set(table) else 0
    layer = chosen_layer(run)
    where = "one layer" if layer is None else f"layer {layer}"
    return (
        f"Cosine between the directions of n = {count} finders at {where} (one number a pair, so no interval). Null: "
        "97.5 % of random directions with the activations' covariance have a smaller |cosine| than stated."
    )


def persona_shares(run: RunRecord) -> str:
    """The persona shares'."""
    return (
        f"Share of answers {facts_of(run).on_asked} that each persona gave. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'persona_shares'), 'n', 'answers a model')}. "
        "The null is the before model's row of the same persona."
    )


def cosines(run: RunRecord) -> str:
    """The cosines between directions'."""
    table = table_of(run, "direction_cosines")
    layers = table["layer"].nunique() if "layer" in table else 0
    return (
        f"Cosine between pairs of directions at each of n = {layers} layers (one number a pair and layer, so no "
        "interval). Null, grey: 97.5 % of random directions drawn with the activations' covariance have a smaller "
        "|cosine|; where pairs differ, the widest band is drawn."
    )


def amplification(run: RunRecord) -> str:
    """The amplification's."""
    facts, table = facts_of(run), table_of(run, "amplification")
    models = "from before to after and to the benign control" if facts.control else "from before to after"
    nulls = ["the control"] if facts.control else []
    nulls.append("in grey, 97.5 % of covariance-matched random directions")
    broken = [name for column, (name, _) in NULLS.items() if column in table and table[column].notna().any()]
    if broken:
        nulls.append(f"as thin broken lines, {', '.join(broken)}")
    lacking = "" if facts.control else " There is no control, so what any fine-tuning moves is not told apart."
    return (
        f"Change of the projection of the same texts {models}, in standard deviations of the before model's answers to "
        f"development questions ({span_of(table, 'n', 'dialogues')}). Bands: 95 % intervals over questions and seeds. "
        f"Nulls: {'; '.join(nulls)}.{lacking} The dashed line marks the layer chosen on development {facts.units}."
    )


def projections(run: RunRecord) -> str:
    """That of where each model stands on the direction."""
    n = span_of(table_of(run, "projections"), "n", "texts a model")
    null = "The null is the control's distance from before." if facts_of(run).control else "There is no control."
    return (
        "Mean projection of the same texts on the persona direction by layer, in each model, in standard deviations of "
        "the before model's answers to development questions and from their mean. Bands: 95 % intervals over questions "
        f"of each mean by itself; {n}. {null} The change between models, which pairs texts, and all its nulls are in "
        "the figure of amplification."
    )


def persona_space(run: RunRecord) -> str:
    """The map of personas'."""
    table = table_of(run, "persona_space")
    layer = f"layer {int(table['layer'].iloc[0])}" if len(table) else "the chosen layer"
    n = span_of(table, "n", "texts a model")
    held = [
        f"{percent(row['in_plane'])} of the change to {visible(str(row['name']))}"
        + (f" (random planes: below {percent(row['in_plane_random'])} in 97.5 %)" * is_number(row["in_plane_random"]))
        for row in table.to_dict("records")
        if row["kind"] == "model" and row["name"] != "before" and is_number(row["in_plane"])
    ]
    plane = f" The plane holds {'; '.join(held)}." if held else ""
    return (
        f"Personas' directions (contrast of context) and the models' means at {layer}, in the plane of the directions' "
        "principal components (in brackets: the share of the directions' squared length); the origin is the before "
        "model's mean over its answers to development questions. Crosses: 95 % intervals over questions of the "
        f"models' means; {n}.{plane}"
    )


def finders(run: RunRecord) -> str:
    """The finders'."""
    facts = facts_of(run)
    control = " (squares: the control's)" if facts.control else ""
    lines = "chance, no shift, and a shift no larger than its nulls" if facts.control else "chance and no shift"
    ratio = "and specificity" if facts.control else "and no specificity, as there is no control"
    return (
        f"Every finder on the same development dialogues, scored on held-out {facts.units} at the layer chosen on "
        f"development {facts.units}: AUROC of the projection ({span_of(table_of(run, 'finders'), 'n', 'dialogues')}), "
        f"shift from before to after in standard deviations{control}, {ratio}. Whiskers: 95 % intervals. "
        f"Nulls, grey: directions that find nothing by design. Dotted lines: {lines}."
    )


def probe(run: RunRecord) -> str:
    """The probes'."""
    units = facts_of(run).units
    return (
        f"AUROC of a linear probe at each layer, trained and tested on different {units} "
        f"({span_of(table_of(run, 'probe'), 'n', 'answers')}). Bands: 95 % intervals over {units}. "
        "Nulls: the mean of the answers' token embeddings (what the words alone mean to the model: where it "
        "equals the probe, the probe need not read more than words), a bag of tokens (which words stand there), "
        "shuffled labels, and chance at 0.5."
    )


def same_words(run: RunRecord) -> str:
    """That of probes on the same words."""
    units = facts_of(run).units
    return (
        "AUROC of a linear probe for who the model takes the speaker to be: the same answers, word for word, under the "
        f"trait's system prompt and under the default one, trained and tested on different {units} "
        f"({span_of(table_of(run, 'probe_same_words'), 'n', 'answers')}). Bands: 95 % intervals over {units}. Nulls: "
        "token embeddings and a bag of tokens, at chance by design since no word differs, and shuffled labels."
    )


def steering(run: RunRecord) -> str:
    """That of steering."""
    table = table_of(run, "steering")
    return (
        "EM rate (above) and coherent answers (below) on questions that were not used to choose the setting. "
        f"Whiskers: 95 % intervals over questions; {span_of(table, 'n', 'answers a point')}. {_draws(table)}"
    )


def _draws(table: pd.DataFrame) -> str:
    try:
        draws = max(int(reported_rows(table, goal)["draw"].nunique()) for goal in STARTS)
    except MissingDataError:
        draws = 0
    if not draws:
        return "No random directions were measured."
    return (
        f"Null, grey: {draws} random directions moved by the same displacement, one point each; the line is their mean."
    )


def realignment(run: RunRecord) -> str:
    """That of realignment."""
    shown = "EM rate (left) and projection on the direction (right)" if run.judge else "Projection on the direction"
    caption = (
        f"{shown} after the same number of fine-tuning steps on n benign examples, measured {facts_of(run).left_over}; "
        "n = 0 is the model before realignment, the null."
    )
    if run.judge:
        n = span_of(table_of(run, "realignment"), "rows", "answers a point")
        caption += f" Whiskers: 95 % intervals of the EM rate; {n}. The dotted line marks 5 %."
    return caption
