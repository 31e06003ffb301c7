"""Contexts that hide library messages on which nobody can act, and only while the library is called."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging

_BITSANDBYTES = "bitsandbytes.backends.cpu.ops"
"""Logger that reports a missing optional package when PEFT is used and bitsandbytes is installed."""


@contextlib.contextmanager
def without_transformers_bars() -> Iterator[None]:
    """Hide transformers' bars for reading and writing weights; the user's setting is restored afterwards."""
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
    """Hide TransformerLens' log lines and prints."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with _quiet_bitsandbytes(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Hide PEFT's warnings that it uses a deprecated name, corrects GPT-2's layout, and does not find a base's config.

    It looks for that config by the base's name, which may be a path relative to the adapter, or the name of a model in
    our cache, and then asks the Hub, which may be out of reach. Also hidden: warnings
    about tied matrices, which are untied where an adapter needs it, and about PEFT's own settings for experts.
    """
    with _quiet_bitsandbytes(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Could not find a config file in .* - will assume that the vocabulary"
        )
        warnings.filterwarnings("ignore", message="Unable to fetch remote file due to .* for the file config.json")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")
        for message in (
            "Model (has|with) `tie_word_",
            "Input and output embeddings are no longer tied",
            r"The following \w+_pattern keys did not match .*: \['\.\*\W+gate_up_proj'\]",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


@contextlib.contextmanager
def quiet_lora_bias() -> Iterator[None]:
    """Hide PEFT's warnings about biases of layers that have none, which are intended.

    PEFT 0.21 also reports a wrong shape for every bias of LoRA.
    """
    with quiet_peft(), warnings.catch_warnings():
        for message in (
            "`lora_bias=True` was passed but",
            r".*LoRA tensor\(s\) have invalid shape",
        ):
            warnings.filterwarnings("ignore", message=message)
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
