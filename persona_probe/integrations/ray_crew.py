"""The workers of a Ray cluster: each piece of work is done by one worker, and done again if the worker dies."""

from __future__ import annotations

import logging
import pickle
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import PersonaProbeError

_log = logging.getLogger(__name__)
_TRIES = 3
_START_SECONDS = 300
_REASON_CHARACTERS = 180


@dataclass(frozen=True)
class Call:
    """A piece of work: a method of `Worker`, its arguments, its name in errors, and its size on the progress bar."""

    method: str
    arguments: tuple[Any, ...]
    name: str
    size: int


class Crew:
    """The workers; each does one call at a time, and some may still be starting."""

    def __init__(self, ray: Any, hire: Callable[[], Any], size: int) -> None:
        self._ray, self._hire = ray, hire
        self._free: list[Any] = []
        self._starting: dict[Any, Any] = {}
        for _ in range(size):
            self._start_one()

    def _start_one(self) -> None:
        worker = self._hire()
        self._starting[worker.ready.remote()] = worker

    def wait_for_one(self) -> None:
        """Return when a worker is free.

        Raises:
            PersonaProbeError: if none can be started.
        """
        while not self._free:
            self._wait([])

    def run(self, calls: Sequence[Call], done: Callable[[int], Any]) -> Iterator[Any]:
        """The results in the order of ``calls``; ``done`` is called with the size of each call that has finished.

        Raises:
            PersonaProbeError: if a worker raised one, or workers die at the same call again and again; it is named.
        """
        results: dict[int, Any] = {}
        deaths: Counter[int] = Counter()
        waiting = deque(range(len(calls)))
        running: dict[Any, tuple[Any, int]] = {}

        def hand_out() -> None:
            while waiting and self._free:
                worker, number = self._free.pop(), waiting.popleft()
                running[getattr(worker, calls[number].method).remote(*calls[number].arguments)] = (worker, number)

        def take_in(ref: Any) -> None:
            worker, number = running[ref]
            lost, result = self._take(ref)
            del running[ref]
            if lost is None:
                self._free.append(worker)
                results[number] = result
                done(calls[number].size)
                return
            deaths[number] += 1
            self._replace(worker)
            name, reason = calls[number].name, _in_short(lost)
            if deaths[number] == _TRIES:
                raise PersonaProbeError(
                    f"{name}: given up, since {_TRIES} Ray workers died at it one after the other, the last with: "
                    f"{reason} The usual cause is too little memory: capture fewer layers, sample smaller batches, "
                    "or use fewer workers"
                )
            _log.warning("%s: its Ray worker died, so another one does it again (%s)", name, reason)
            waiting.appendleft(number)

        try:
            hand_out()
            for number in range(len(calls)):
                while number not in results:
                    for ref in self._wait([*running]):
                        take_in(ref)
                    hand_out()
                yield results.pop(number)
        finally:
            # After an error these are still working; their next call waits until they are done.
            self._free += [worker for worker, _ in running.values()]

    def dismiss(self) -> None:
        """Kill all workers."""
        for worker in (*self._free, *self._starting.values()):
            self._ray.kill(worker)
        self._free, self._starting = [], {}

    def _wait(self, running: Sequence[Any]) -> list[Any]:
        """The references in ``running`` that are done, when some are or a worker has started."""
        exceptions = self._ray.exceptions
        if not running and not self._starting:
            raise PersonaProbeError("all Ray workers died; see the logs of the cluster's machines in /tmp/ray")
        limit = None if running else _START_SECONDS
        ready, _ = self._ray.wait([*self._starting, *running], timeout=limit)
        if not ready:
            free = self._ray.available_resources()
            raise PersonaProbeError(
                f"no Ray worker could be started within {_START_SECONDS} s: of the cluster's resources, "
                f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free; stop what uses the others"
            )
        for ref in ready:
            worker = self._starting.pop(ref, None)
            if worker is None:
                continue
            try:
                self._ray.get(ref)
            except exceptions.RayError as error:
                # Not replaced: one that cannot start here would not start the next time either.
                if not running and not self._free and not self._starting:
                    raise PersonaProbeError(f"no Ray worker could be started: {_in_short(error)}") from error
                continue
            self._free.append(worker)
        return [ref for ref in ready if ref in running]

    def _take(self, ref: Any) -> tuple[Exception | None, Any]:
        """The error with which a call was lost (None if it was not), and its result, unpacked."""
        exceptions = self._ray.exceptions
        try:
            return None, pickle.loads(self._ray.get(ref))
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, PersonaProbeError):
                raise PersonaProbeError(str(error.cause)) from error
            raise
        except (
            exceptions.RayActorError,
            exceptions.ObjectLostError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.WorkerCrashedError,
        ) as error:
            return error, None

    def _replace(self, worker: Any) -> None:
        # The worker may only have been out of reach: it must not keep its GPU.
        self._ray.kill(worker)
        self._start_one()


def _in_short(error: Exception) -> str:
    """The start of the message's last line: Ray puts a traceback before the reason, and advice after it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], _REASON_CHARACTERS, placeholder=" ...") if lines else type(error).__name__
