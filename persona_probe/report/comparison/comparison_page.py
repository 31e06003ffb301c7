"""One self-contained page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import write_text
from persona_probe.report.comparison.compared_run import read_runs
from persona_probe.report.comparison.compared_sections import compare_sections
from persona_probe.report.comparison.compared_settings import differing_settings, identities
from persona_probe.report.comparison.obstacles import model_obstacles, rate_obstacles
from persona_probe.report.data_table import csv_text
from persona_probe.report.page import render_page


def compare_runs(folders: Sequence[str | Path], path: str | Path = "comparison.html") -> Path:
    """Write a page that compares runs, and return its path.

    The page has EM rates, amplification at the chosen layers, steering, realignment and the cosines between the runs'
    directions, each with intervals and nulls; the settings that differ; and what cannot be compared, and why.

    Args:
        folders: the folders of two runs or more.
        path: the path of the page; its folder is made if it does not exist.

    Raises:
        PersonaProbeError: if fewer than two runs are given, or one twice.
        PersonaProbeError: if a folder does not hold a finished run.
    """
    check_types(folders=(folders, [PATH]), path=(path, PATH))
    if len(folders) < 2:
        raise PersonaProbeError(f"{len(folders)} run is given; a comparison needs two or more run folders")
    runs = read_runs(folders)
    sections = compare_sections(runs)
    page = render_page(
        "comparison.html.j2",
        figures={section.id: section.figure for section in sections if section.figure is not None},
        data={section.id: csv_text(section.data) for section in sections if section.figure is not None},
        title=f"{len(runs)} runs compared",
        names=[run.name for run in runs],
        obstacles=[*rate_obstacles(runs), *model_obstacles(runs)],
        sections=sections,
        settings=differing_settings(runs),
        identities=identities(runs),
    )
    return write_text(Path(path), page)
