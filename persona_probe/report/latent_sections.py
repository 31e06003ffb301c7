"""The report's sections on SAE latents; each is there only if the study measured it."""

from __future__ import annotations

from dataclasses import replace

from persona_probe.report import data_tables, verdicts
from persona_probe.report.captions import table_of
from persona_probe.report.figure_list import figures
from persona_probe.report.latent_cards import build_browser
from persona_probe.report.section import Section, make_section
from persona_probe.runs.record import RunRecord


def latent_sections(run: RunRecord) -> list[Section]:
    """Build those sections for which the run has the table."""
    makers = {
        "latents": (_latents, _latents_beside_control),
        "latent_effects": (_latent_effects,),
        "latent_course": (_course,),
        "latent_realignment": (_realignment,),
    }
    return [maker(run) for name, own in makers.items() if name in run.tables for maker in own]


def _latents(run: RunRecord) -> Section:
    sentences = [verdicts.latent_verdict(run.results)]
    section = make_section(run, "latents", "SAE latents", figures["latents"], sentences, [], judged=False)
    return replace(section, browser=build_browser(table_of(run, "latents"), run.latent_cards))


def _latents_beside_control(run: RunRecord) -> Section:
    kind = figures["latents_control"]
    return make_section(run, "latents-control", "SAE latents beside the control", kind, [], [], judged=False)


def _latent_effects(run: RunRecord) -> Section:
    tables = [data_tables.latent_effects(table_of(run, "latent_effects"))]
    kind = figures["latent_effects"]
    return make_section(run, "latent-effects", "What single latents do", kind, [], tables, judged=True)


def _course(run: RunRecord) -> Section:
    sentences = verdicts.course_verdicts(run.results, "course_verdict")
    tables = [data_tables.latent_course(table_of(run, "latent_course"))]
    kind = figures["latent_course"]
    return make_section(run, "latent-course", "Latents along training", kind, sentences, tables, judged=False)


def _realignment(run: RunRecord) -> Section:
    sentences = verdicts.course_verdicts(run.results, "realignment_verdict")
    tables = [data_tables.latent_course(table_of(run, "latent_realignment"))]
    kind = figures["latent_realignment"]
    return make_section(run, "latent-realignment", "Latents under realignment", kind, sentences, tables, judged=False)
