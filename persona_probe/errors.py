"""Errors that users can cause, and can repair themselves; and the check of the types that they give."""

from __future__ import annotations

import numbers
import os
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class PersonaProbeError(ValueError):
    """Bad input: the message says what was wrong, where, which value was seen, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class NothingMeasuredError(PersonaProbeError):
    """Answers were sampled, but no number can be computed from them."""


class PersonaProbeWarning(UserWarning):
    """Something that may make a number mean less than it seems to; the work continues."""


_LINES = 12
"""Of a library's error, at most: torch names every tensor of a wrong shape on a line of its own."""


def library_message(error: BaseException) -> str:
    r"""What another library's ``error`` says, on one line: its first line, or all of them if the first ends in a colon.

    >>> library_message(RuntimeError("Error(s) in loading:\n\tsize mismatch for head: (8, 4), here (9, 4)"))
    'Error(s) in loading: size mismatch for head: (8, 4), here (9, 4)'
    >>> library_message(OSError("no such file\nSee the manual."))
    'no such file'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError):
        return " ".join([type(error).__name__, *lines])
    if not lines[0].endswith(":"):
        return lines[0]
    rest = len(lines) - _LINES
    return " ".join(lines[:_LINES]) + (f" ... (and {rest} more lines)" if rest > 0 else "")


PATH = (str, os.PathLike)
WHOLE, NUMBER = numbers.Integral, numbers.Real
"""Types for `check_types`; NumPy's numbers are numbers, True and False are not."""

_IN_WORDS = {PATH: "a path", WHOLE: "a whole number", NUMBER: "a number", str: "text"}
_HOW_TO_MAKE = {
    "Model": "load one with pp.load(path), and give it before the other arguments",
    "Server": "name one with pp.Server(base_url, model)",
    "ModelPair": "load one with pp.load_pair(before, after)",
    "Dialogue": "make one with pp.Dialogue.from_messages, or read a file with pp.read_dialogues(path)",
    "Direction": "find one with pp.find_direction, or make one with pp.Direction.from_vectors(model, vectors)",
    "Subspace": "make one with pp.directions.find_subspace",
    "Intervention": "make one, such as pp.Add(direction, layers=12)",
    "Activations": "make them with pp.capture(model, dialogues)",
    "Captures": "make them with pp.capture(pair, dialogues)",
    "LayerProbes": "fit them with pp.probes.LayerProbes().fit(activations, labels)",
    "Sae": "open one with pp.latents.load_sae(folder)",
    "LatentStatistics": "make them with pp.latents.encode_latents",
    "LatentEdit": "make one, such as pp.latents.LatentEdit([3, 7])",
    "Sampling": "make them with pp.Sampling(max_new_tokens=40)",
    "LoraSettings": "make them with pp.LoraSettings(steps=80)",
    "StudyConfig": "read one with pp.read_config(path)",
    "DataFrame": "give a pandas table",
}
"""What to do where an object of a class is missing, by the name of the class."""


def check_types(**given: tuple[Any, ...]) -> None:
    """Raise if an argument has none of its permitted types.

    Args:
        **given: for each argument, its value followed by the types: a class, `PATH`, `WHOLE`, `NUMBER` or None;
            ``[Class]`` for a list (or another sequence) of its objects (``[Class, None]``: or None); or
            ``{str: Class}`` for a mapping from names to its objects.

    Raises:
        PersonaProbeError: naming the argument, what was given, what can be given and how to make it; for an object of
            an earlier import of this package, saying so.

    >>> check_types(k=(3, WHOLE), name=(None, str, None), seeds=([0, 1], WHOLE, [WHOLE]))
    >>> check_types(texts=(["one", 2], [str]))
    Traceback (most recent call last):
    persona_probe.errors.PersonaProbeError: texts must be a list of texts, but item 1 is an int (2)
    """
    for name, (value, *kinds) in given.items():
        if not any(_fits(value, kind) for kind in kinds):
            raise PersonaProbeError(f"{name} must be {' or '.join(map(_named, kinds))}, but {_mismatch(value, kinds)}")


def what_is(value: object) -> str:
    """A value in a few words, for messages: ``a str ('evil')``, ``an ndarray of shape (3, 32)``, ``None``.

    An object that was made before this package was reloaded is named as such: its class has the expected name, but it
    is a different class.

    >>> what_is("evil"), what_is([1, 2]), what_is(None)
    ("a str ('evil')", 'a list', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    name = type(value).__name__
    words = f"{_article(name)} {name}"
    if of_earlier_import(value):
        return (
            f"{words} made by an earlier import of persona_probe (the package was reloaded since): make it again, or "
            "restart the kernel"
        )
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{words} of shape {tuple(shape)}"
    if isinstance(value, str | bytes | numbers.Number | os.PathLike):
        return f"{words} ({reprlib.repr(value if not isinstance(value, os.PathLike) else os.fspath(value))})"
    return words


def of_earlier_import(value: object) -> bool:
    """Whether the class of ``value`` was replaced, or forgotten, when this package was imported again."""
    for kind in type(value).__mro__:
        if kind.__module__.split(".")[0] == __name__.split(".")[0] and "<locals>" not in kind.__qualname__:
            now: Any = sys.modules.get(kind.__module__)
            for part in kind.__qualname__.split("."):
                now = getattr(now, part, None)
            if now is not kind:
                return True
    return False


def _fits(value: Any, kind: Any) -> bool:
    # Only what is there already is looked at: other sequences and mappings may load a model for each item.
    if isinstance(kind, list):
        is_row = kind[0] in (WHOLE, NUMBER) and getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")
        value = value.tolist() if is_row else value  # of an array, a series or a tensor
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return is_list and all(_fits_one(item, kind) for item in (value if isinstance(value, list | tuple) else ()))
    if isinstance(kind, dict):
        is_mapping = isinstance(value, Mapping)
        return is_mapping and all(_is(item, kind[str]) for item in (value.values() if isinstance(value, dict) else ()))
    return _is(value, kind)


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind in (WHOLE, NUMBER, bool) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # NumPy's truth values, and arrays and tensors of one number
    return isinstance(value, kind) and not (kind in (WHOLE, NUMBER) and isinstance(value, bool))


def _named(kind: Any) -> str:
    if isinstance(kind, list):
        return f"a list of {' or '.join('None' if one is None else _items(one) for one in kind)}"
    if isinstance(kind, dict):
        return f"a mapping from names to {_items(kind[str])}"
    return "None" if kind is None else _IN_WORDS.get(kind) or f"{_article(kind.__name__)} {kind.__name__}"


def _items(kind: Any) -> str:
    return {WHOLE: "whole numbers", NUMBER: "numbers", str: "texts", PATH: "paths"}.get(kind) or f"{kind.__name__}s"


def _article(name: str) -> str:
    return "an" if name[0] in "AEIOUaeiou" or name == "ndarray" else "a"


def _mismatch(value: Any, kinds: Sequence[Any]) -> str:
    """What is wrong with a value, and what to do."""
    classes = [
        one
        for kind in kinds
        for one in (kind if isinstance(kind, list) else kind.values() if isinstance(kind, dict) else [kind])
    ]
    wrong, where = value, "this"
    if isinstance(value, dict) and any(isinstance(kind, dict) for kind in kinds):
        named = ((f"the one named {name!r}", item) for name, item in value.items())
        where, wrong = next((entry for entry in named if not _fits_one(entry[1], classes)), (where, wrong))
    elif isinstance(value, list | tuple) and any(isinstance(kind, list) for kind in kinds):
        numbered = ((f"item {number}", item) for number, item in enumerate(value))
        where, wrong = next((entry for entry in numbered if not _fits_one(entry[1], classes)), (where, wrong))
    elif any(isinstance(kind, list) and isinstance(value, kind[0]) for kind in kinds):
        return f"this is {what_is(value)}: put it into a list"
    words = f"{where} is {what_is(wrong)}"
    if of_earlier_import(wrong):
        return words
    if isinstance(wrong, Iterator):
        return f"{words}, which can be read only once: make a list of it"
    has_items = hasattr(wrong, "__iter__") or hasattr(wrong, "__getitem__")
    is_other_collection = has_items and not isinstance(wrong, str | bytes | Mapping | type)
    if where == "this" and any(isinstance(kind, list) for kind in kinds) and is_other_collection:
        return f"{words}: make a list of it, list(...)"
    if type(wrong).__name__ == "ModelPair" and "Model" in [getattr(kind, "__name__", None) for kind in classes]:
        return f"{words}: give one of its models, such as pair.after"
    names = (getattr(kind, "__name__", None) for kind in classes)
    how = next((_HOW_TO_MAKE[name] for name in names if name in _HOW_TO_MAKE), None)
    return words if how is None else f"{words}; {how}"


def _fits_one(value: object, classes: Sequence[Any]) -> bool:
    return any(_is(value, kind) for kind in classes)
