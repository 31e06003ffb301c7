"""The part of docs/benchmarks.md on libraries in separate environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "own_environment.json"
TITLE = "## In separate environments"
HEAD = (
    "| | steered at one layer, over unsteered | at every layer | same with and without KV cache | "
    "from the last prompt token on, as asked |"
)
HOW = """\
These libraries cannot be installed together with persona-probe. Each is compared with plain Hugging Face `generate` in
its own environment and process, on the CPU shape, batch and answer length of the section on steering (times: median
over rounds, and range). The two columns on the right are shares of greedy new tokens: those of steered generation with
the KV cache that are the same without it; and, if the library can steer from a token on, those of cached generation
that are the same as with a forward hook without cache. When all tokens are steered, these shares of new tokens are the
same as with a forward hook: {alike}. The scripts, and how to make the environments, are in
`benchmarks/own_environment/`."""


def part() -> list[str]:
    """Title, table and explanation; empty if nothing was measured."""
    if not RESULTS.exists():
        return []
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = [HEAD, "|---|---|---|---|---|", *(_row(name, result) for name, result in results.items())]
    alike = ", ".join(f"{name} {100 * result['checks']['like_a_bare_hook']:.0f} %" for name, result in results.items())
    return [TITLE, "\n".join(rows), HOW.format(alike=alike)]


def _row(name: str, result: dict[str, Any]) -> str:
    versions, checks = result["versions"], result["checks"]
    times = [result["figures"][f"vs_plain_{layers}"] for layers in ("one_layer", "all_layers")]
    shown = [f"{time['median']:.2f}× [{time['min']:.2f}×, {time['max']:.2f}×]" for time in times]
    asked = checks["from_answer"]
    shown.append(f"{100 * checks['cached_and_uncached']:.0f} %")
    shown.append("not possible" if asked is None else f"{100 * asked['cached_like_a_bare_hook']:.0f} %")
    label = f"{name} {versions[name]} (transformers {versions['transformers']}, {result['date']})"
    return f"| {label} | {' | '.join(shown)} |"
