"""What the command line shows of warnings: the package's own, once each, in plain text; no other library's."""

from __future__ import annotations

import logging
import sys
import warnings

from persona_probe.errors import PersonaProbeWarning


def show_own_warnings() -> None:
    """From now on show the package's warnings and log messages on standard error, each once, and hide all others."""
    shown: set[str] = set()
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", category=PersonaProbeWarning)

    def show(message: Warning | str, category: type[Warning], *_where: object, **_more: object) -> None:
        if issubclass(category, PersonaProbeWarning):
            _say(str(message), shown)

    warnings.showwarning = show
    logger = logging.getLogger("persona_probe")
    logger.addHandler(_Once(shown))
    logger.setLevel(logging.WARNING)
    logger.propagate = False


class _Once(logging.Handler):
    """Shows log messages that were not shown yet."""

    def __init__(self, shown: set[str]) -> None:
        super().__init__(logging.WARNING)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Show the message."""
        _say(record.getMessage(), self._shown)


def _say(message: str, shown: set[str]) -> None:
    """One line on standard error, between progress bars and not in them."""
    if message in shown:
        return
    shown.add(message)
    line = f"persona-probe: warning: {message}"
    if "tqdm" in sys.modules:
        from tqdm.auto import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)
