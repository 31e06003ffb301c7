"""repeng: its control modules replace the blocks and add the vector. Tokens cannot be chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from benchmarks.own_environment.harness import main


@contextlib.contextmanager
def steering(model: Any, vectors: dict[int, Tensor]) -> Iterator[None]:
    from repeng import ControlModel

    controlled = ControlModel(model, list(vectors))
    try:
        controlled.set_raw_control(vectors)
        yield
    finally:
        controlled.unwrap()


if __name__ == "__main__":
    main("repeng", steering, None)
