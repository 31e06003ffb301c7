"""steering-vectors: hooks that add the vector; `min_token_index` says from which token on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from benchmarks.own_environment.harness import main


@contextlib.contextmanager
def steering(model: Any, vectors: dict[int, Tensor], **which: Any) -> Iterator[None]:
    from steering_vectors import SteeringVector

    with SteeringVector(vectors).apply(model, **which):
        yield


if __name__ == "__main__":
    main("steering-vectors", steering, lambda first: {"min_token_index": first})
