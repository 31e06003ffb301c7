from __future__ import annotations

from pathlib import Path
from typing import Any

from persona_probe.runs.run import open_run


def test_a_run_says_the_lines_that_its_study_ended_with(
    tmp_path: Path, write_run: Any, results: dict[str, Any], manifest: Any
) -> None:
    results["summary"] = ["EM rate   it rose", "          \x1b[31mto 74 %\u202e"]
    run = open_run(write_run(tmp_path / "run", {}, results, manifest))
    assert run.headline() == "EM rate   it rose\n          \ufffd[31mto 74 %\ufffd"
    assert repr(run).splitlines()[1:] == run.headline().splitlines()


def test_a_run_without_such_lines_gives_its_title(tmp_path: Path, write_run: Any, results: dict[str, Any]) -> None:
    for number, lines in enumerate((None, [], "text")):
        folder = write_run(tmp_path / str(number), {}, results | {"summary": lines}, None)
        assert open_run(folder).headline().startswith("Bad medicine in Persona World: this run has no summary")
