"""Capture and sampling over a Ray cluster: one copy of the weights in each worker, work handed out piece by piece."""

from __future__ import annotations

import functools
import logging
import operator
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from tqdm.auto import tqdm

from persona_probe.activations.activations import Activations
from persona_probe.activations.moments import Covariance, Moments
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.integrations.ray_crew import Call, Crew
from persona_probe.integrations.ray_worker import Wanted, Worker
from persona_probe.models.model import Model
from persona_probe.study.executor import AnswerJob, CaptureOptions

_CHUNK_CHARACTERS = 65_536
"""The size of a chunk, about 16,384 tokens: one full batch of a GPU, eight of a CPU."""
_LONGER_FOR_MATRICES = 16
"""How many times longer chunks are for full covariances: gigabytes in large models, sent once per chunk."""
_TEMPLATE_CHARACTERS = 64
"""The number of characters that a chat template is assumed to add to each message."""
_CPUS_A_WORKER = 4
_CONNECT_SECONDS = 5
_OBJECT_STORE_BYTES = 2**30
"""For a cluster started here; Ray would take 30 % of the memory. What does not fit goes to disk."""


class RayCluster:
    """Runs models on the workers of a Ray cluster: an executor for `run_study`, and `capture` for any script.

    Each worker is a Ray actor with one copy of the weights (adapters are added to it), one GPU and its share of the
    CPUs. Results are those of a local run up to the order of summation. A capture is cut into chunks of consecutive
    dialogues, about 65,536 characters each (16 times that for full covariances), whatever the number of workers;
    answers are sampled job by job. If a worker dies, its piece of work is given to another worker, and a new worker is
    started.

    Folders of models and adapters must be visible to all machines; a worker whose weights or chat template differ from
    those here refuses to work. Close the cluster, or use it as a context manager, to stop its workers.

    Args:
        address: ``"auto"``, the cluster that runs on this machine (or at ``RAY_ADDRESS``); ``"host:port"``; or
            ``"local"``, a cluster that is started here and stopped again. If the program has called ``ray.init``
            already, that session is used, and left running.
        workers: default one per GPU; in a cluster without GPUs, one for every four CPUs of a machine, at least one.

    Raises:
        PersonaProbeError: if Ray is not installed, there is no cluster, or it has no room for so many workers.
    """

    def __init__(self, address: str = "auto", *, workers: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray = ray = _imported()
        self._ours = not ray.is_initialized()
        self._crew: Crew | None = None
        if self._ours:
            _connect(ray, address)
        try:
            number, cpus, gpus = _shares(ray.nodes(), workers)
            actor = ray.remote(Worker).options(
                num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
            )
            self._crew = Crew(ray, lambda: actor.remote(max(1, cpus)), number)
            self._crew.wait_for_one()
        except BaseException:
            self.close()
            raise
        self.workers = number

    def __enter__(self) -> Self:
        """The cluster itself; its workers have been started already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""
        self.close()

    def close(self) -> None:
        """Stop the workers, and the connection to the cluster if it was made here."""
        if self._crew is not None:
            self._crew.dismiss()
            self._crew = None
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def answers(self, jobs: Sequence[AnswerJob], *, progress: bool, label: str) -> Iterator[list[Dialogue]]:
        """The answers to each job's questions, in the order of ``jobs``; each job is sampled by one worker alone.

        Raises:
            PersonaProbeError: as ``steer`` and ``model.generate``, and for a model that workers cannot load.
        """
        wanted = Wanted.of_all([job.model for job in jobs])
        calls = []
        for number, job in enumerate(jobs, 1):
            rest = {item.name: getattr(job, item.name) for item in fields(job) if item.name != "model"}
            name = f"job {number} of {len(jobs)} ({len(job.questions)} answers of {job.model.name})"
            calls.append(Call("answer", (wanted[id(job.model)], rest), name, len(job.questions)))
        yield from self._run(calls, progress, label, "answer")

    @overload
    def capture(
        self,
        model: Model,
        dialogues: Sequence[Dialogue],
        *,
        progress: bool = ...,
        **options: Unpack[CaptureOptions],
    ) -> Activations: ...
    @overload
    def capture(
        self,
        model: Model,
        dialogues: Sequence[Dialogue],
        *,
        reduce: Literal["moments"],
        span: str = ...,
        layers: int | Sequence[int] | str = ...,
        covariance: Covariance = ...,
        tokens_per_batch: int | None = ...,
        sink_ratio: float | None = ...,
        progress: bool = ...,
    ) -> Moments: ...
    def capture(
        self, model: Model, dialogues: Sequence[Dialogue], *, progress: bool = False, **options: Any
    ) -> Activations | Moments:
        """The activations that `persona_probe.capture` would give, with the same options.

        Raises:
            PersonaProbeError: as `persona_probe.capture`, and for a model that workers cannot load.
        """
        parts = self._in_chunks("capture", Wanted.of(model), dialogues, options, progress)
        if options.get("reduce") == "moments":
            # Added up as they arrive, so that only a few full matrices are in memory at a time.
            moments: Moments = functools.reduce(operator.add, parts)
            return _known_as(model, moments)
        return _known_as(model, Activations.concatenate(list(parts)))

    def capture_together(
        self,
        models: Sequence[Model],
        dialogues: Sequence[Dialogue],
        *,
        progress: bool = False,
        **options: Unpack[CaptureOptions],
    ) -> list[Activations]:
        """As `persona_probe.activations.capture_together`; workers hold all ``models`` meanwhile.

        Raises:
            PersonaProbeError: as `persona_probe.activations.capture_together`, and for a model that workers cannot
                load.
        """
        wanted = Wanted.of_all(models)
        everyone = [wanted[id(model)] for model in models]
        parts = list(self._in_chunks("capture_together", everyone, dialogues, dict(options), progress))
        return [
            _known_as(model, Activations.concatenate([part[number] for part in parts]))
            for number, model in enumerate(models)
        ]

    def _in_chunks(
        self,
        method: str,
        wanted: Wanted | Sequence[Wanted],
        dialogues: Sequence[Dialogue],
        options: Mapping[str, Any],
        progress: bool,
    ) -> Iterator[Any]:
        """The result of a worker's ``method`` for each chunk of ``dialogues``, in order."""
        if not dialogues:
            raise PersonaProbeError("there are no dialogues: the list is empty")
        chunks = list(_chunks(dialogues, full_covariance=options.get("covariance") == "full"))
        calls = [
            Call(
                method,
                (wanted, chunk, options),
                f"chunk {number} of {len(chunks)} (dialogues {chunk[0].name} to {chunk[-1].name})",
                len(chunk),
            )
            for number, chunk in enumerate(chunks, 1)
        ]
        return self._run(calls, progress, "capture", "dialogue")

    def _run(self, calls: Sequence[Call], progress: bool, label: str, unit: str) -> Iterator[Any]:
        if self._crew is None:
            raise PersonaProbeError("the Ray cluster was closed; make a new RayCluster")
        total = sum(call.size for call in calls)
        with tqdm(total=total, desc=label, unit=unit, disable=not progress, leave=False) as bar:
            yield from self._crew.run(calls, bar.update)


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise PersonaProbeError("Ray is not installed: pip install 'persona-probe[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Connect to, or start, a cluster."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ray.init(address=address, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        return
    known = _remembered() if address == "auto" else address
    if known is not None:
        _check_reachable(known)
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        if "AuthenticationError" in str(error.__cause__):
            raise PersonaProbeError(
                f"the Ray cluster at {address!r} asks for a token: set RAY_AUTH_MODE=token, and put the token of its "
                "head node into ~/.ray/auth_token"
            ) from error
        raise PersonaProbeError(
            f"no Ray cluster is running at {address!r}: start one with `ray start --head` (and `ray start "
            "--address=HOST:PORT` on other machines), or give 'local' to start one for this run only"
        ) from error


def _remembered() -> str | None:
    """The address that ``auto`` means: RAY_ADDRESS, or what ``ray start`` noted here, maybe for a cluster long gone."""
    note = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    address = os.environ.get("RAY_ADDRESS") or (note.read_text(encoding="utf-8").strip() if note.is_file() else "")
    return address if ":" in address else None


def _check_reachable(address: str) -> None:
    """Raise if nothing listens at an address; Ray itself would keep trying for minutes."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise PersonaProbeError(
            f"the Ray address is {address!r}; give 'auto', 'local', or HOST:PORT of the head node (as `ray start "
            "--head` prints it; 6379 is the usual port)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PersonaProbeError(
            f"no Ray cluster answers at {address!r} ({error}); start one there with `ray start --head` (if a cluster "
            "crashed there, run `ray stop` first)"
        ) from error


def _shares(nodes: Sequence[dict[str, Any]], workers: int | None) -> tuple[int, int, int]:
    """How many workers, and the CPUs and GPUs of each."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    rooms = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive]
    gpus = sum(gpu for _, gpu in rooms)
    cpus = [cpu for cpu, gpu in rooms if gpu > 0 or not gpus]
    most = gpus or sum(cpus)
    if workers is None:
        workers = gpus or sum(max(1, cpu // _CPUS_A_WORKER) for cpu in cpus if cpu > 0)
    if not 1 <= workers <= most:
        raise PersonaProbeError(
            f"{workers} workers were asked for, but the Ray cluster has {most} {'GPU' if gpus else 'CPU'}s; each "
            "worker needs one"
        )
    if gpus:
        return workers, min(cpu // gpu for cpu, gpu in rooms if gpu > 0), 1
    return workers, max(share for share in range(1, max(cpus) + 1) if sum(c // share for c in cpus) >= workers), 0


def _chunks(dialogues: Sequence[Dialogue], *, full_covariance: bool = False) -> Iterator[list[Dialogue]]:
    """Chunks of consecutive dialogues with about ``_CHUNK_CHARACTERS`` each, or more where results are large."""
    limit = _CHUNK_CHARACTERS * (_LONGER_FOR_MATRICES if full_covariance else 1)
    chunk: list[Dialogue] = []
    size = 0
    for dialogue in dialogues:
        chunk.append(dialogue)
        size += sum(len(message.content) + _TEMPLATE_CHARACTERS for message in dialogue.messages)
        if size >= limit:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


_Read = TypeVar("_Read", Activations, Moments)


def _known_as(model: Model, read: _Read) -> _Read:
    """``read`` with the name that the model has here; workers call it by its full path."""
    return replace(read, source={**read.source, "model": model.name})
