"""One self-contained ``report.html`` from a run folder: no network, no foreign scripts, all text escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.errors import PATH, check_types
from persona_probe.figures.text import is_number
from persona_probe.files import write_text
from persona_probe.report.data_table import csv_text
from persona_probe.report.facts import facts_of
from persona_probe.report.methods import methods_text
from persona_probe.report.page import HERE, render_page
from persona_probe.report.reading import formula_of
from persona_probe.report.sections import Section, build_sections, opening_section
from persona_probe.report.shown_answers import sample_answers
from persona_probe.runs.record import RunRecord, read_run

LARGEST_DATA = 400_000
"""The greatest number of characters of a table inside the page; a larger one is linked to in the run's folder."""


def render_report(directory: Path) -> Path:
    """Write ``report.html`` into a finished run's folder and return its path.

    The file is written whole or not at all. The page says which parts of the study are missing.

    Args:
        directory: a run folder with ``results.json`` and, if the study wrote them, ``manifest.json`` and ``tables/``.

    Raises:
        PersonaProbeError: if the folder has no ``results.json``.
        ValueError: if ``results.json`` or ``manifest.json`` is not a JSON object.
    """
    check_types(directory=(directory, PATH))
    directory = Path(directory)
    return write_text(directory / "report.html", _render(read_run(directory)))


def bibliography() -> str:
    """BibTeX entries of the works that reports cite, and of the package."""
    return (HERE / "references.bib").read_text(encoding="utf-8")


def _render(run: RunRecord) -> str:
    opening, sections = opening_section(run), build_sections(run)
    return render_page(
        "report.html.j2",
        figures={section.id: section.figure for section in [opening, *sections] if section.figure is not None},
        data=_data(sections),
        title=str(run.results.get("title") or "A persona-probe study"),
        subtitle=run.results.get("subtitle"),
        definitions={name: (formula_of(name), definition.source) for name, definition in DEFINITIONS.items()},
        judge=run.judge,
        facts=facts_of(run),
        shown={section.id for section in sections if section.figure is not None}.__contains__,
        by_answers=(run.directory / "directions" / "answers.json").is_file(),
        notes=[str(note) for note in run.results.get("notes") or []],
        minutes=_minutes(run),
        opening=opening,
        sections=sections,
        answers=sample_answers(run.tables.get("answers"), judged=run.judge is not None),
        methods=methods_text(run),
        manifest=run.manifest,
        models=_models(run.manifest),
        seeds=_mapping(run.manifest.get("seeds")),
        versions=_mapping(run.manifest.get("versions")),
        config=_pretty(run.manifest.get("config")),
        files=_files(run.directory),
        bibliography=bibliography(),
    )


def _data(sections: Iterable[Section]) -> dict[str, str]:
    """The tables from which the figures were drawn, as CSV, if they are small enough for the page."""
    drawn = {name: table for section in sections for name, table in section.data.items()}
    texts = {name: csv_text(table) for name, table in drawn.items()}
    return {name: text for name, text in texts.items() if len(text) <= LARGEST_DATA}


def _models(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    parts = ("path", "hash", "chat_template_hash", "default_system_prompt")
    return [
        {"name": str(name), **{part: _stated(model.get(part)) for part in parts}}
        for name, model in _mapping(manifest.get("models")).items()
        if isinstance(model, Mapping)
    ]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _stated(value: object) -> str:
    return "none" if value is None else str(value)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _minutes(run: RunRecord) -> str | None:
    seconds = run.results.get("seconds", run.manifest.get("seconds"))
    return f"{seconds / 60:.1f} minutes" if is_number(seconds) else None


def _files(directory: Path) -> list[dict[str, str]]:
    """The data files next to the report, as links that stay inside the folder."""
    paths = [*sorted((directory / "tables").glob("*.csv")), directory / "results.json", directory / "manifest.json"]
    names = [path.relative_to(directory).as_posix() for path in paths if path.is_file()]
    return [{"name": name, "href": quote(name)} for name in names]
