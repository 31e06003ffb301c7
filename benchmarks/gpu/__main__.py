"""``make gpu``: tests, benchmarks and a study on a GPU, within ten minutes; or all of it in small, on a CPU."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from benchmarks.gpu.checkout import ROOT, stand_in
from benchmarks.gpu.part import PARTS, Part, left_out

if TYPE_CHECKING:
    from benchmarks.gpu.record import Record

SHAPE = {"cuda": "qwen2.5-7b-brief", "cpu": "tiny"}
TESTS = ("tests/test_gpu.py", "tests/linear/test_linear_fit.py")
MOST_OVER = 1.5
"""How many times its estimate the tests may take."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=sorted(SHAPE), default="cuda", help="cpu: a dry run in small sizes")
    parser.add_argument("--minutes", type=float, default=9.5, help="what is not done by then is skipped or ended")
    parser.add_argument("--out", type=Path, help="the JSON file; needed with --device cpu")
    parser.add_argument("--only", help=f"parts, separated by commas (default all: {','.join(p.name for p in PARTS)})")
    given = parser.parse_args()
    if given.device == "cpu" and given.out is None:
        parser.error("a dry run measures nothing: give --out")
    names = given.only.split(",") if given.only else [part.name for part in PARTS]
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"no part {sorted(unknown)[0]!r}: choose from {', '.join(part.name for part in PARTS)}")

    with tempfile.TemporaryDirectory(prefix="persona-probe-") as folder:
        stand_in(Path(folder))
        _run_parts([part for part in PARTS if part.name in names], given)


def _run_parts(chosen: Sequence[Part], given: argparse.Namespace) -> None:
    from benchmarks.gpu.record import Record

    deadline = time.time() + 60 * given.minutes
    out = (given.out or ROOT / "benchmarks" / "results" / "gpu.json").resolve()
    out.unlink(missing_ok=True)
    record = Record(out)
    record.about(command=" ".join(["python -m benchmarks.gpu", *sys.argv[1:]]), minutes=given.minutes)
    for in_process, parts in itertools.groupby(chosen, key=lambda part: part.module is not None):
        if in_process:
            _in_child(record, list(parts), given.device, deadline)
        else:
            _tests(record, next(iter(parts)), deadline)
    result = record.read()["parts"]
    for name, part in result.items():
        print(f"{name}: {part['status']}", part.get("reason") or json.dumps(part.get("figures")), flush=True)
    print(out)
    if bad := [name for name, part in result.items() if part["status"] in ("failed", "killed")]:
        raise SystemExit(f"not done: {', '.join(bad)}")


def _in_child(record: Record, parts: Sequence[Part], device: str, deadline: float) -> None:
    """Run parts in one process; if a part ends the process, the others get a new one."""
    waiting = [part.name for part in parts]
    while waiting:
        command = [sys.executable, "-m", "benchmarks.gpu.child", "--record", str(record.path), "--device", device]
        code = _run([*command, "--shape", SHAPE[device], "--deadline", str(deadline), *waiting], deadline)
        ended = [name for name in waiting if record.status(name) == "running"]
        for name in ended:
            reason = "the time was over" if code is None else f"it ended the process with code {code}"
            record.part(name, "killed" if code is None else "failed", reason=reason)
        before = len(waiting)
        waiting = [name for name in waiting if record.status(name) is None]
        if code is None:
            for name in waiting:
                record.part(name, "skipped", reason="the time was over")
            return
        if len(waiting) == before:
            for name in waiting:
                record.part(name, "failed", reason=f"the process did not begin it (code {code}); see its output")
            return


def _tests(record: Record, part: Part, deadline: float) -> None:
    """The tests that need a GPU, counted from pytest's own report."""
    if reason := left_out(part, deadline - time.time()):
        record.part(part.name, "skipped", reason=reason)
        return
    record.part(part.name, "running", estimate=part.seconds)
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        # Tests that hang must not take the time of what comes after them.
        code = _run([*command, *TESTS], min(deadline, started + MOST_OVER * part.seconds))
        if not report.exists():
            why = "the time was over" if code is None else f"pytest ended with code {code}; see its output"
            record.part(part.name, "killed" if code is None else "failed", reason=why)
            return
        cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    left = [case for case in cases if case.find("skipped") is not None]
    figures = {"passed": len(cases) - len(wrong) - len(left), "failed": len(wrong), "skipped": len(left)}
    seconds = {str(case.get("name")): float(case.get("time", 0)) for case in cases}
    failures = {str(case.get("name")): _first_line(case) for case in wrong}
    facts = {"seconds": time.time() - started, "estimate": part.seconds, "figures": figures}
    reason = {"reason": f"failed: {', '.join(failures)}"} if failures else {}
    record.part(
        part.name,
        "failed" if failures else "done",
        **facts,
        **reason,
        raw={"seconds": seconds, "failures": failures},
    )


def _first_line(case: ElementTree.Element) -> str:
    found = case.find("failure")
    found = found if found is not None else case.find("error")
    return "" if found is None else str(found.get("message", ""))[:300]


def _run(command: Sequence[str], deadline: float) -> int | None:
    """The exit code of a command, run in the repository's root; None if it was ended at the deadline."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, check=False, timeout=max(1.0, deadline - time.time())
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


if __name__ == "__main__":
    main()
