"""Checks of what callers give, each written once, with messages that say what to do."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from persona_probe.errors import NUMBER, PersonaProbeError, check_types, what_is


def check_level(level: float) -> None:
    """Raise if a confidence level is outside (0, 1).

    Raises:
        PersonaProbeError: if ``level`` is not strictly between 0 and 1.
    """
    check_types(level=(level, NUMBER))
    if not 0.0 < level < 1.0:
        raise PersonaProbeError(f"level is {level}; give a share strictly between 0 and 1, such as 0.95")


def on_host(values: Any) -> Any:
    """A tensor (on any device, with or without a gradient) as an array; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return (tensor.float() if str(tensor.dtype) in ("torch.bfloat16", "torch.float16") else tensor).numpy()


def numeric_array(values: Any, name: str) -> npt.NDArray[Any]:
    """``values`` (an array, a tensor on any device, a list, a series) as an array of numbers or truth values.

    Raises:
        PersonaProbeError: for anything else.
    """
    try:
        array = np.asarray(on_host(values))
        if array.dtype == object and array.ndim:  # of a table whose columns have several types
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PersonaProbeError(f"{name} cannot be read as an array of numbers ({error}); give an array") from error
    if array.dtype.kind not in "fiub":
        what = f"holds values of type {array.dtype}" if array.ndim else f"is {what_is(values)}"
        raise PersonaProbeError(f"{name} {what}; give numbers: an array, a tensor or a list")
    return array


def real_array(values: npt.ArrayLike, name: str, shape: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """``values`` as finite, non-empty float64 with one axis for each name in ``shape``.

    Raises:
        PersonaProbeError: if the number of axes is wrong, there is nothing in it, or anything is NaN or infinite.
    """
    array = numeric_array(values, name).astype(np.float64, copy=False)
    if array.ndim != len(shape):
        raise PersonaProbeError(f"{name} has shape {array.shape}; give {len(shape)} axes: ({', '.join(shape)})")
    if array.size == 0:
        raise PersonaProbeError(f"{name} is empty (shape {array.shape}); give at least one {shape[0]}")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise PersonaProbeError(
            f"{name}: {bad} of {array.size} values are NaN or infinite; drop or repair them first, and report how many"
        )
    return array


def _read(values: Any, name: str) -> npt.NDArray[Any]:
    """``values`` as an array of anything, from any device."""
    try:
        return np.asarray(on_host(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise PersonaProbeError(f"{name} cannot be read as an array ({error})") from error


def boolean_array(values: npt.ArrayLike, name: str) -> npt.NDArray[np.bool_]:
    """``values`` as a non-empty boolean ``(row,)`` array; 0 and 1 are taken for False and True.

    Raises:
        PersonaProbeError: if it is not one-dimensional, is empty, or holds anything but truth values (a failed
            judge's NaN is neither true nor false, and must be left out by the caller, visibly).
    """
    array = _read(values, name)
    if array.ndim != 1:
        raise PersonaProbeError(f"{name} has shape {array.shape}; give one truth value per row: (row,)")
    if array.size == 0:
        raise PersonaProbeError(f"{name} is empty; give at least one row")
    if array.dtype == np.bool_:
        return array
    bad = [value for value in array.tolist() if not _is_truth_value(value)]
    if bad:
        raise PersonaProbeError(
            f"{name}: {len(bad)} of {array.size} rows are not True or False (the first is {bad[0]!r}); "
            "leave rows without an answer out of the denominator, and report how many"
        )
    return array.astype(np.bool_)


def _is_truth_value(value: object) -> bool:
    return isinstance(value, bool | np.bool_ | int | float) and value in (0, 1)


def codes(labels: npt.ArrayLike | None, name: str, rows: int, *, when_none: str) -> npt.NDArray[np.intp]:
    """Each row's label as an integer 0, 1, ..., in order of first appearance.

    Args:
        labels: ``(row,)`` of anything hashable (text, numbers), or None.
        name: what to call them in errors.
        rows: how many there must be.
        when_none: what None means: ``"distinct"`` (every row is its own) or ``"same"`` (all rows are one).

    Returns:
        ``(row,)`` integer codes.

    Raises:
        PersonaProbeError: if the length is wrong, or a label is None or NaN.
    """
    if labels is None:
        return np.arange(rows) if when_none == "distinct" else np.zeros(rows, dtype=np.intp)
    given = _read(labels, name)
    if given.shape != (rows,):
        raise PersonaProbeError(f"{name} has shape {given.shape} but there are {rows} rows; give one label per row")
    seen: dict[Hashable, int] = {}
    out = np.empty(rows, dtype=np.intp)
    for row, label in enumerate(given.tolist()):
        if label is None or (isinstance(label, float) and math.isnan(label)):
            raise PersonaProbeError(
                f"{name}: row {row} has no label ({label!r}); every row must say which it belongs to"
            )
        out[row] = seen.setdefault(label, len(seen))
    return out
