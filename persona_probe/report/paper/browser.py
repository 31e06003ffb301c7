"""Figures as PDF, SVG or PNG, drawn by one headless browser for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import PersonaProbeError
from persona_probe.report.paper.layout import Fitted

FORMATS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class Job:
    """One picture: the figure, its format, and the device pixels per pixel of its layout."""

    fitted: Fitted
    format: str
    scale: float


def render(jobs: Sequence[Job]) -> list[bytes]:
    """The pictures of all jobs, from one browser session; nothing is fetched from the network.

    Raises:
        PersonaProbeError: if kaleido is not installed, finds no Chrome or Chromium, or the browser fails; the message
            says what to install.
    """
    if not jobs:
        return []
    try:
        kaleido = importlib.import_module("kaleido")
        errors = importlib.import_module("choreographer.errors")
    except ModuleNotFoundError as error:
        raise PersonaProbeError(
            "exporting figures needs kaleido, which is not installed: pip install 'persona-probe[export]'"
        ) from error
    outcome: list[bytes] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.extend(asyncio.run(_render(kaleido, jobs)))
        except BaseException as error:  # noqa: BLE001 - raised for the caller below
            failure.append(error)

    # In another thread, because in a notebook's thread an event loop is running already.
    thread = threading.Thread(target=work, name="persona-probe-export")
    with _quiet():
        thread.start()
        thread.join()
    if not failure:
        return outcome
    if isinstance(failure[0], errors.ChromeNotFoundError):
        raise PersonaProbeError(
            "exporting figures needs Chrome or Chromium, which was not found: install it (Debian and Ubuntu: "
            "apt-get install chromium), or set BROWSER_PATH to its path"
        ) from failure[0]
    raise PersonaProbeError(
        f"the browser that draws figures failed: {failure[0]}; does 'chromium --headless --no-sandbox about:blank' run?"
    ) from failure[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context without the browser library's log of messages that it skips; failures are raised."""
    loggers = [logging.getLogger(name) for name in ("choreographer", "kaleido")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


async def _render(kaleido: Any, jobs: Sequence[Job]) -> list[bytes]:
    # Without mathjax=False, kaleido's page loads it from a CDN, but no figure here uses it.
    async with kaleido.Kaleido(n=1, mathjax=False) as browser:
        return [
            await browser.calc_fig(
                job.fitted.figure,
                opts={
                    "format": job.format,
                    "width": job.fitted.width,
                    "height": job.fitted.height,
                    "scale": job.scale,
                },
            )
            for job in jobs
        ]
