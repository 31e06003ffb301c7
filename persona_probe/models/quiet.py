"""What libraries put on the screen and nobody can act on: hidden while they are called, and only then."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging

_BITSANDBYTES = "bitsandbytes.backends.cpu.ops"
"""Says on import that an optional package is missing, wherever bitsandbytes is installed and PEFT is used."""


@contextlib.contextmanager
def without_transformers_bars() -> Iterator[None]:
    """Hide transformers' bars for reading and writing weights; what the user has set is put back."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with _quiet_bitsandbytes():
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def quiet_transformer_lens() -> Iterator[None]:
    """Keep TransformerLens' progress lines and prints off the screen while it is asked or built."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with _quiet_bitsandbytes(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep PEFT quiet.

    It reads an attribute by its deprecated name, mends GPT-2's layout itself, and looks for the base model's config by
    a name that is relative to the adapter.
    """
    with _quiet_bitsandbytes(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Could not find a config file in .* - will assume that the vocabulary"
        )
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")
        yield


@contextlib.contextmanager
def quiet_lora_bias() -> Iterator[None]:
    """Keep PEFT quiet about what is meant: biases of layers that have none, an embedding whose head stays as it was.

    It also takes every bias of LoRA for one of a wrong shape (0.21).
    """
    with quiet_peft(), warnings.catch_warnings():
        for said in (
            "`lora_bias=True` was passed but",
            r".*LoRA tensor\(s\) have invalid shape",
            "Model has `tie_word_",
        ):
            warnings.filterwarnings("ignore", message=said)
        yield


@contextlib.contextmanager
def _quiet_bitsandbytes() -> Iterator[None]:
    logger = logging.getLogger(_BITSANDBYTES)
    previous = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(previous)
