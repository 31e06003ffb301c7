"""Everything of a run that a paper may need, in one folder: figures, tables, their provenance, and an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.figures.text import visible
from persona_probe.files import write_text
from persona_probe.report.data_table import csv_text
from persona_probe.report.figure_list import figures
from persona_probe.report.methods import methods_text
from persona_probe.report.page import HERE
from persona_probe.report.paper.browser import FORMATS
from persona_probe.report.paper.export import WIDTHS_MM, PaperFigure, to_paper_all
from persona_probe.report.paper.latex import latex_table
from persona_probe.report.paper.provenance import provenance, write_sidecar
from persona_probe.report.run_page import bibliography
from persona_probe.report.sections import Section, build_sections
from persona_probe.runs.record import RunRecord, read_run


@dataclass(frozen=True)
class Listed:
    """An entry of the index: its name, its caption, and its files, relative to the folder."""

    name: str
    caption: str
    files: list[str]


def write_paper_folder(
    run: str | Path | RunRecord,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("pdf",),
    widths: Sequence[str] = ("column", "page"),
) -> Path:
    """Export every figure and table of a run, and return the path of the index.

    ``figures/NAME-WIDTH.pdf`` are the figures, ``tables/NAME.csv`` the tables with every number, and
    ``tables/NAME.tex`` the report's tables for LaTeX (booktabs); each has a sidecar ``.json`` with its provenance.
    ``methods.txt`` and ``references.bib`` are ready to paste, and ``index.html`` lists all. Files with the same names
    are replaced.

    Args:
        run: a run folder, or its record from `read_run`.
        folder: the folder to write; it is made if it does not exist.
        formats: any of ``pdf``, ``svg``, ``png``.
        widths: any of ``column``, ``page``.

    Raises:
        PersonaProbeError: for an unknown format or width, or if kaleido or a browser is missing.
    """
    check_types(run=(run, PATH, RunRecord), folder=(folder, PATH), formats=(formats, [str]), widths=(widths, [str]))
    _known("format", formats, FORMATS)
    _known("width", widths, tuple(WIDTHS_MM))
    record = run if isinstance(run, RunRecord) else read_run(Path(run))
    folder = Path(folder)
    drawn = _figures(record, folder, formats, widths)
    tables = _tables(record, folder)
    write_text(folder / "methods.txt", methods_text(record) + "\n")
    write_text(folder / "references.bib", bibliography())
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("paper_index.html.j2").render(
        title=visible(str(record.results.get("title") or "A persona-probe study")),
        source=visible(str(record.directory)),
        figures=drawn,
        tables=tables,
    )
    return write_text(folder / "index.html", page)


def _known(what: str, given: Sequence[str], known: tuple[str, ...]) -> None:
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        problem = f"{wrong[0]!r} is unknown" if wrong else "none is given"
        raise PersonaProbeError(f"{what}: {problem}; give one or more of {', '.join(known)}")


def _figures(run: RunRecord, folder: Path, formats: Sequence[str], widths: Sequence[str]) -> list[Listed]:
    wanted: list[PaperFigure] = []
    listed = []
    for name, kind in figures.items():
        inputs = kind.inputs(run)
        try:
            figure = kind.draw(run, inputs)
        except ValueError:
            continue  # not measured in this study
        caption = "" if kind.caption is None else kind.caption(run)
        files = [f"figures/{name}-{width}.{form}" for width in widths for form in formats]
        sizes = [width for width in widths for _ in formats]
        wanted += [
            PaperFigure(figure, folder / file, width, caption=caption, tables=inputs, run=run)
            for file, width in zip(files, sizes, strict=True)
        ]
        listed.append(Listed(name, visible(caption), files))
    to_paper_all(wanted)
    return listed


def _tables(run: RunRecord, folder: Path) -> list[Listed]:
    shown: dict[str, list[str]] = {}
    listed = []
    for section in build_sections(run):
        for number, table in enumerate(section.tables):
            source = _source(section)
            label = source if number == 0 else f"{source}-{number + 1}"
            path = folder / "tables" / f"{label}.tex"
            write_text(path, latex_table(table, label=label))
            write_sidecar(path, provenance(figure=label, caption=table.caption, run=run, tables=section.data))
            shown.setdefault(source, []).append(f"tables/{label}.tex")
    for name, numbers in run.tables.items():
        path = folder / "tables" / f"{name}.csv"
        write_text(path, csv_text(numbers))
        write_sidecar(path, provenance(figure=name, run=run, tables={name: numbers}))
        listed.append(Listed(name, f"{len(numbers):,} rows", [f"tables/{name}.csv", *shown.pop(name, [])]))
    return listed


def _source(section: Section) -> str:
    """The name of the table that a section shows."""
    return section.kind.tables[0] if section.kind.tables else section.id
