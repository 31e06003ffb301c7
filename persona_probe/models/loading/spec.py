"""Where a model comes from: all that is needed to load it again, here or in another process."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

from persona_probe.errors import PATH, PersonaProbeError, check_types

if TYPE_CHECKING:
    import torch

Quantize = Literal["4bit", "8bit"]


class LoadOptions(TypedDict, total=False):
    """The keyword arguments of `persona_probe.load`, except ``adapter`` and ``merge``."""

    device: str | torch.device | None
    device_map: str | Mapping[str, Any] | None
    dtype: torch.dtype | str | None
    quantize: Quantize | None
    revision: str | None
    trust_remote_code: bool
    tokenizer: str | Path | None
    chat_template: str | Path | None
    thinking: bool | None
    today: datetime.date | None
    template_variables: Mapping[str, Any] | None


def given_options(**options: Unpack[LoadOptions]) -> LoadOptions:
    """Those options that were given: the others have their defaults, or those of the model before.

    >>> given_options(dtype="bfloat16", device=None, thinking=False, trust_remote_code=False)
    {'dtype': 'bfloat16', 'thinking': False}
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given.get("trust_remote_code"):
        given.pop("trust_remote_code", None)
    return cast(LoadOptions, given)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise if a keyword is not an option of loading, so that a misspelt one does not pass unseen.

    Raises:
        PersonaProbeError: naming it, and the likely one; or if the tokenizer is not a path, or the template no text.
    """
    for name in options:
        if name not in LoadOptions.__annotations__:
            near = difflib.get_close_matches(name, LoadOptions.__annotations__, n=1)
            hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(LoadOptions.__annotations__)}"
            raise PersonaProbeError(f"loading a model takes no option {name}= ({options[name]!r} was given); {hint}")
    check_types(
        tokenizer=(options.get("tokenizer"), PATH, None), chat_template=(options.get("chat_template"), PATH, None)
    )


@dataclass(frozen=True)
class ModelSpec:
    """A model's source and the options to load it with; picklable.

    Attributes:
        source: local folder or Hub id of a full model.
        adapter: local folder or Hub id of an adapter on it, or None.
        adapter_revision: branch, tag or commit of the adapter's Hub repository.
        merge: whether the adapter is merged into the weights.
        options: the options given to `persona_probe.load`.
    """

    source: str
    adapter: str | None = None
    adapter_revision: str | None = None
    merge: bool = False
    options: LoadOptions = field(default_factory=LoadOptions)

    @property
    def name(self) -> str:
        """The model's name in tables: the adapter if there is one, else the source."""
        return self.adapter or self.source
