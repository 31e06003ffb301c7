"""Numbers, settings and names from a run's record, as text; what is missing there is said to be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.figures.text import count_range, is_number, visible
from persona_probe.runs.record import RunRecord

_SHOWN = 12
"""How many characters of a hash are enough to distinguish models."""


def lookup(results: Mapping[str, Any], *keys: str) -> Any:
    """The value at ``results[key][key]...``, or None if the path ends early."""
    value: Any = results
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def read_number(results: Mapping[str, Any], *keys: str) -> float | None:
    """The finite number at a path, or None; for ``{"value": ...}`` its value."""
    value = lookup(results, *keys)
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if is_number(value) else None


def settings_of(run: RunRecord, section: str) -> Mapping[str, Any]:
    """A section of the settings; empty if the manifest has none."""
    settings = lookup(run.manifest, "config", section)
    return settings if isinstance(settings, Mapping) else {}


def table_of(run: RunRecord, name: str) -> pd.DataFrame:
    """The table with this name, or an empty one (figures say what they lack)."""
    return run.tables.get(name, pd.DataFrame())


def definition_of(run: RunRecord) -> str:
    """The name of the EM-rate definition that the run reports."""
    name = str(run.results.get("definition") or "betley")
    return name if name in DEFINITIONS else "betley"


def formula_of(name: str) -> str:
    """The formula of a definition, as in its paper."""
    return DEFINITIONS[name].formula.replace("<=", "≤").replace(">=", "≥")


def chosen_layer(run: RunRecord) -> int | None:
    """The layer that the run chose on development topics; None if it does not say."""
    layer = read_number(run.results, "amplification", "layer")
    return None if layer is None else int(layer)


def compared_layer(run: RunRecord) -> int | None:
    """The layer of analyses that need one: the chosen one, or another one where the direction replicates at none."""
    layer = read_number(run.results, "direction", "layer")
    return chosen_layer(run) if layer is None else int(layer)


def span_of(table: pd.DataFrame, column: str, unit: str) -> str:
    """The range of n over all estimates, as ``n = 192 to 1,104 answers per row``."""
    if column not in table or table[column].dropna().empty:
        return "n unknown"
    return f"n = {count_range(table[column])} {unit}"


def hash_of(model: object) -> str:
    """The start of the hash of a model's weights."""
    full = model.get("hash") if isinstance(model, Mapping) else None
    return f"hash {one_line(full)[:_SHOWN]}" if full else "hash not recorded"


def joined(names: Sequence[str]) -> str:
    """Names in a sentence, as ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def number_of(value: object) -> str:
    """A number as text, or that it was not recorded."""
    return f"{value:g}" if is_number(value) else "not recorded"


def one_line(value: object) -> str:
    """Untrusted text as one line without invisible characters."""
    if isinstance(value, list | tuple):
        return ", ".join(map(one_line, value))
    return "not recorded" if value is None else " ".join(visible(str(value)).split())
