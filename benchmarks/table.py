"""The tables in README.md and docs/benchmarks.md, made from the results alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.own_environment.table import part
from benchmarks.row import Row
from benchmarks.sections import SECTIONS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
NOT_MEASURED = "not measured"


def write_tables() -> None:
    for path, text in expected().items():
        path.write_text(_replaced(path.read_text(encoding="utf-8"), text), encoding="utf-8")


def expected() -> dict[Path, str]:
    """The text between the markers of each document."""
    results = read_results()
    return {ROOT / "README.md": short_table(results), ROOT / "docs" / "benchmarks.md": full_table(results)}


def read_results() -> dict[str, dict[str, Any]]:
    """The results by device, for devices that were measured."""
    files = {name: RESULTS / f"{file}.json" for name, file in (("CPU", "cpu"), ("GPU", "cuda"))}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def between_markers(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def short_table(results: dict[str, dict[str, Any]]) -> str:
    rows = [row for section in SECTIONS.values() for row in section.ROWS if row.headline]
    return "\n\n".join([_table(rows, results), *_sentences(results)])


def full_table(results: dict[str, dict[str, Any]]) -> str:
    parts = _sentences(results)
    for name, section in SECTIONS.items():
        parts += [f"## {name.replace('_', ' ').capitalize()}", _table(section.ROWS, results), section.HOW]
    return "\n\n".join([*parts, *part()])


def _table(rows: list[Row], results: dict[str, dict[str, Any]]) -> str:
    shown = [
        row for row in rows if not row.gpu_only or any(_figure(result, row) is not None for result in results.values())
    ]
    lines = [f"| | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    lines += [f"| {row.words} | {' | '.join(_cell(result, row) for result in results.values())} |" for row in shown]
    return "\n".join(lines)


def _figure(result: dict[str, Any], row: Row) -> float | None:
    section, _, name = row.figure.partition(".")
    figures = result.get(section)
    return figures.get(name) if name and isinstance(figures, dict) else figures


def _cell(result: dict[str, Any], row: Row) -> str:
    """The figure, with its range over rounds if there were several."""
    value = _figure(result, row)
    if value is None:
        return NOT_MEASURED
    section, _, name = row.figure.partition(".")
    spread = result["raw"].get(section, {}).get("ratios", {}).get(name, {"rounds": 1})
    if spread["rounds"] == 1:
        return _written(value, row.unit)
    return f"{_written(value, row.unit)} [{_written(spread['min'], row.unit)}, {_written(spread['max'], row.unit)}]"


def _written(value: float, unit: str) -> str:
    return {
        "times": f"{value:.2f}×",
        "share": f"{100 * value:.0f} %",
        "seconds": f"{value:.3f} s",
        "megabytes": f"{value:.0f} MB",
        "tokens_per_second": f"{value:,.0f} tokens/s",
        "number": f"{value:.2f}",
    }[unit]


def _sentences(results: dict[str, dict[str, Any]]) -> list[str]:
    """On what and when each device's figures were measured; one sentence for all sections with the same setting."""
    sentences = []
    for device, result in results.items():
        sections = [result["raw"].get(name, {}).get("about") or result for name in SECTIONS if name in result]
        places = dict.fromkeys((about["hardware"], about["model"], about["date"]) for about in sections)
        sentences += [f"{device}: measured on {date} on {hardware}; {model}." for hardware, model, date in places]
    return sentences


def _replaced(text: str, table: str) -> str:
    if BEGIN not in text or END not in text:
        raise RuntimeError(f"the markers {BEGIN} and {END} are missing")
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    write_tables()
