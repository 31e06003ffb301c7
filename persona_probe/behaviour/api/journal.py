"""A file to which each reply is appended as it arrives, so that a run which was stopped asks nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from persona_probe.behaviour.api.chat import ChatReply
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

_BROKEN = (ValueError, TypeError, LookupError, AttributeError)


class Journal:
    """The replies in a file by their keys, and the file to which more are appended; made by `open_journal`."""

    def __init__(self, replies: dict[str, ChatReply], file: IO[bytes] | None) -> None:
        self._replies = replies
        self._file = file

    def reply(self, key: str) -> ChatReply | None:
        """The reply with this key; None if it has not arrived, or the request failed and is to be asked again."""
        return self._replies.get(key)

    def append(self, key: str, reply: ChatReply, **asked: Any) -> None:
        """Append a reply, and in the same line what was ``asked``; it is out of this process when this returns."""
        if self._file is None:
            return
        line = json.dumps({"key": key, **asked, "reply": reply.record()}, ensure_ascii=False)
        # One write of one line: a process that is killed leaves whole lines, and at most one half at the end.
        self._file.write(line.encode("utf-8", errors="surrogatepass") + b"\n")
        self._file.flush()


@contextlib.contextmanager
def open_journal(path: Path | None) -> Iterator[Journal]:
    """The journal in ``path`` (created if it is missing), locked against other processes; None gives one of no file.

    Raises:
        PersonaProbeError: if another process has it open, it cannot be written, or a line of it is broken (other than
            the last one).

    Warns:
        PersonaProbeWarning: if the last line is broken, as a process that was killed leaves it: it is dropped.
    """
    if path is None:
        yield Journal({}, None)
        return
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise PersonaProbeError(
            f"{path}: another run appends to this file; wait until it has finished, or stop it"
        ) from None
    except OSError as error:
        raise PersonaProbeError(f"{path}: cannot be written: {error.strerror}; give another file") from error
    try:
        replies = _read(path)
        with path.open("ab") as file:
            yield Journal(replies, file)
    finally:
        with contextlib.suppress(OSError):  # before it is released: whoever waits sees that the file has no name
            Path(lock.lock_file).unlink()
        lock.release()


def read_journal(path: Path) -> dict[str, ChatReply]:
    """The replies in a journal by their keys, without the requests that failed and are to be asked again."""
    return _parsed(path, path.read_bytes())[0] if path.exists() else {}


def _read(path: Path) -> dict[str, ChatReply]:
    """The replies, after the end of the file is mended: half a line is cut off, a lacking line break is added."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    replies, whole = _parsed(path, content)
    if whole < len(content):
        warnings.warn(
            f"{path}: its last line is broken, as if a run was killed while it wrote; it was dropped, and this request "
            "is made again",
            PersonaProbeWarning,
            stacklevel=4,
        )
        os.truncate(path, whole)
    elif content and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    return replies


def _parsed(path: Path, content: bytes) -> tuple[dict[str, ChatReply], int]:
    """The replies, and how many bytes hold them."""
    replies: dict[str, ChatReply] = {}
    lines, place = content.splitlines(keepends=True), 0
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                record = json.loads(line.decode("utf-8", errors="surrogatepass"))
                key, reply = str(record["key"]), ChatReply.from_record(record["reply"])
                if reply.error is None:
                    replies[key] = reply
        except _BROKEN as error:
            if number == len(lines):
                break
            raise PersonaProbeError(
                f"{path}, line {number}: is not a reply that was appended here ({line[:60]!r}); give another file, or "
                "remove the line, and this request is made again"
            ) from error
        place += len(line)
    return replies, place
