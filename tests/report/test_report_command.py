from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persona_probe.cli import app
from persona_probe.errors import PersonaProbeError
from persona_probe.report.paper import folder as paper_folder
from tests.report.test_comparison import write


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return "".join(done.output.split())


def test_one_run_is_reported_again(tmp_path: Path) -> None:
    run = write(tmp_path / "run", only=("em_rates",))
    assert str((run / "report.html").resolve()) in call(run)
    assert (run / "report.html").stat().st_size < 10_000_000


def test_several_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [write(tmp_path / name) for name in ("one", "two")]
    call(*runs)
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    call(*runs, "--out", tmp_path / "deep" / "other.html")
    assert (tmp_path / "deep" / "other.html").is_file()
    assert not (runs[0] / "report.html").exists()


def test_each_run_is_exported_for_a_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write(tmp_path / name, only=("em_rates", "probe")) for name in ("one", "two")]
    drawn: list[str] = []
    monkeypatch.setattr(paper_folder, "to_paper_all", lambda wanted: drawn.extend(str(one.path) for one in wanted))
    call(*runs, "--paper", tmp_path / "paper", "--format", "svg, png", "--width", "page")
    assert {Path(path).suffix for path in drawn} == {".svg", ".png"}
    assert all("-page." in path for path in drawn)
    for name in ("one", "two"):
        about = json.loads((tmp_path / "paper" / name / "tables" / "em_rates.csv.json").read_text())
        assert about["run"]["folder"].endswith(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nothing-here"], "nothing-here: holds no results.json, so it is not a run folder"),
        (["run", "run"], "is given twice"),
        (["run", "--paper", "out", "--format", "gif"], "'gif' is unknown"),
        (["run", "--out", "x.html"], "a comparison needs two or more"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run", only=())
    with pytest.raises(PersonaProbeError, match=said):
        CliRunner().invoke(app, ["report", *given], catch_exceptions=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
