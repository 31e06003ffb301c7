"""Shapes in annotations, checked while tests run (``pytest --jaxtyping-packages=PACKAGE,...,tests.shapes.check``).

Other annotations are left alone, since tests hand over wrong types on purpose to see what is said.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, refusing arrays of other shapes than its annotations say."""
    if not inspect.isfunction(function):
        return function
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # names that are imported for type checkers alone
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _is_array(hint)}
    return beartype(function) if function.__annotations__ else function


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)
