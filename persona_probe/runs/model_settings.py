"""A study's settings on how models are loaded, and what all of its settings have in common."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A part of a study's settings: unknown fields are mistakes."""

    # A mistaken value is quoted by our own messages, which leave out what may be a key.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class Weights(Settings):
    """How the weights of a model are loaded."""

    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] | None = None
    """The precision; default float32 on a CPU, and the stored precision on a GPU."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Load the weights in fewer bits, with bitsandbytes."""
    revision: str | None = None
    """Branch, tag or commit of the model's Hub repository."""


class Loading(Weights):
    """How the models are loaded: the arguments of `persona_probe.load` with the same names."""

    device_map: str | dict[str, int | str] | None = None
    """How to spread the model over devices, as accelerate does: 'auto', or a map by module; then leave out 'device'."""
    trust_remote_code: bool = False
    """Run the Python code in the model's repository; only for repositories whose code you have read."""
    tokenizer: str | None = None
    """Folder or Hub id of the tokenizer to use instead of the model's (or its adapter's) own."""
    chat_template: Path | None = None
    """A Jinja file to use instead of the tokenizer's own template (base models have none)."""
    thinking: bool | None = None
    """Whether the model reasons before it answers, for templates that have a switch for it."""
    today: datetime.date | None = None
    """The date for templates that write today's date."""
    template_variables: dict[str, Any] | None = None
    """Further variables for the chat template."""
