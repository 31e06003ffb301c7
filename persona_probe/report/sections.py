"""The report's sections: for each, the sentence its numbers make, its figure with a caption, its tables."""

from __future__ import annotations

from collections.abc import Callable

from persona_probe.report import data_tables, verdicts
from persona_probe.report.by_question import unit_of
from persona_probe.report.captions import table_of
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_list import figures
from persona_probe.report.latent_sections import latent_sections
from persona_probe.report.section import Section, make_section
from persona_probe.runs.record import RunRecord


def build_sections(run: RunRecord) -> list[Section]:
    """Build every section of a run's report, in the order of the study; those of latents only if there are any."""
    makers: tuple[Callable[[RunRecord], Section | None], ...] = (
        _em_rates,
        _by_question,
        _scatter,
        _persona_shares,
        _directions,
        _amplification,
        _projections,
        _persona_space,
        _finders,
        _finder_cosines,
        _probe,
        _same_words,
        _steering,
        _realignment,
    )
    made = [maker(run) for maker in makers]
    return [*(section for section in made if section is not None), *latent_sections(run)]


def summary_section(run: RunRecord) -> Section:
    """Build the opening section: every verdict, and the main figure."""
    section = make_section(run, "summary", "In brief", figures["summary"], [], [], judged=False)
    if section.figure is not None:
        section.figure.update_layout(height=800)
    return section


def _em_rates(run: RunRecord) -> Section:
    sentences = [verdicts.em_verdict(run.results, facts_of(run).on_asked)] if run.judge else []
    tables = [data_tables.em_rates(table_of(run, "em_rates"), asked=facts_of(run).asked)]
    return make_section(
        run, "em-rates", "EM rate before and after", figures["em_rates"], sentences, tables, judged=True
    )


def _by_question(run: RunRecord) -> Section | None:
    unit = "topic" if unit_of(run) == "group" else "question"
    return _where_drawn(run, "em-by-question", f"EM rate by {unit}", "em_by_question")


def _scatter(run: RunRecord) -> Section | None:
    return _where_drawn(run, "answers-scatter", "Aligned beside coherent", "answers_scatter")


def _where_drawn(run: RunRecord, id: str, title: str, name: str) -> Section | None:
    """A section that is there only if the run's answers were judged."""
    if run.judge is None:
        return None
    section = make_section(run, id, title, figures[name], [], [], judged=True)
    return None if section.figure is None else section


def _persona_shares(run: RunRecord) -> Section:
    sentences = [verdicts.persona_verdict(run.results)] if run.judge else []
    tables = [data_tables.persona_shares(table_of(run, "persona_shares"))]
    return make_section(
        run, "personas", "Which persona spread", figures["persona_shares"], sentences, tables, judged=True
    )


def _directions(run: RunRecord) -> Section:
    table = table_of(run, "direction_cosines")
    sentences = [verdicts.direction_verdict(run.results), verdicts.shift_verdict(table)]
    tables = [data_tables.cosines(table)]
    return make_section(
        run, "directions", "Do the directions agree?", figures["cosines"], sentences, tables, judged=False
    )


def _amplification(run: RunRecord) -> Section:
    sentences = [verdicts.amplification_verdict(run.results)]
    tables = [data_tables.amplification(table_of(run, "amplification"))]
    return make_section(
        run, "amplification", "Amplification", figures["amplification"], sentences, tables, judged=False
    )


def _projections(run: RunRecord) -> Section | None:
    return _if_there(run, "projections", "Where the models stand on the direction", "projections")


def _persona_space(run: RunRecord) -> Section | None:
    return _if_there(run, "persona-space", "Where the models stand among the personas", "persona_space")


def _if_there(run: RunRecord, id: str, title: str, name: str) -> Section | None:
    """A section that is there only if the run left its table: some studies have none, and earlier runs lack it."""
    section = make_section(run, id, title, figures[name], [], [], judged=False)
    return None if section.figure is None else section


def _finders(run: RunRecord) -> Section:
    table = table_of(run, "finders")
    sentences = [verdicts.finder_verdict(table)]
    tables = [data_tables.finders(table)]
    return make_section(run, "finders", "Finders head to head", figures["finders"], sentences, tables, judged=False)


def _finder_cosines(run: RunRecord) -> Section | None:
    return _if_there(run, "finder-cosines", "Do the finders agree?", "finder_cosines")


def _probe(run: RunRecord) -> Section:
    sentences = [verdicts.probe_verdict(run.results, facts_of(run).units)]
    tables = [data_tables.probe(table_of(run, "probe"))]
    return make_section(run, "probe", "Can a linear probe read it?", figures["probe"], sentences, tables, judged=False)


def _same_words(run: RunRecord) -> Section:
    sentences = [verdicts.same_words_verdict(run.results)]
    tables = [data_tables.probe(table_of(run, "probe_same_words"))]
    kind = figures["probe_same_words"]
    return make_section(run, "same-words", "Does it read more than words?", kind, sentences, tables, judged=False)


def _steering(run: RunRecord) -> Section:
    table = table_of(run, "steering")
    sentences: list[str | None] = [*verdicts.steering_verdicts(run.results)] if run.judge else []
    tables = [data_tables.steering(table), data_tables.steering_choice(table)]
    title = "Steering: inducing and suppressing"
    return make_section(run, "steering", title, figures["steering"], sentences, tables, judged=True)


def _realignment(run: RunRecord) -> Section:
    sentences = [verdicts.realignment_verdict(run.results)]
    tables = [data_tables.realignment(table_of(run, "realignment"))]
    return make_section(run, "realignment", "Realignment", figures["realignment"], sentences, tables, judged=False)
