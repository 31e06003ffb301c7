from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.amplification.verdict import Finding
from persona_probe.directions import vector_files as files
from persona_probe.errors import PersonaProbeError
from persona_probe.report.comparison import compared_tables as combined
from persona_probe.report.comparison.compared_directions import direction_cosines
from persona_probe.report.comparison.compared_run import read_runs, run_names
from persona_probe.report.comparison.compared_settings import differing_settings
from persona_probe.report.comparison.comparison_page import compare_runs
from persona_probe.report.comparison.obstacles import model_obstacles, rate_obstacles, shift_obstacles
from tests.report.conftest import _manifest, _results, _write_run, make_tables
from tests.report.test_run_page import HOSTILE, read, words


def write(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A run like any other, but for what ``changes`` says."""
    tables, results, manifest = make_tables(np.random.default_rng(seed)), _results(), copy.deepcopy(_manifest())
    results |= changes.get("results", {})
    manifest["config"] |= changes.get("config", {})
    manifest["models"]["before"] |= changes.get("before", {})
    tables = {name: tables[name] for name in changes.get("only", tables)}
    if "prompt" in changes:
        tables["answers"] = tables["answers"].assign(prompt=changes["prompt"])
    return _write_run(folder, tables, results, manifest)


def save_direction(run: Path, vectors: np.ndarray, *, model: str = "m", name: str = "contrast-of-context") -> None:
    (run / "directions").mkdir(exist_ok=True)
    norms = np.linalg.norm(vectors, axis=1).tolist()
    card = {
        "format": "persona-probe direction 2",
        "model_hash": model,
        "family": ["root"] if model == "m" else [model],
        "layers": list(range(len(vectors))),
        "d_model": vectors.shape[1],
        "norms": norms,
    }
    files.write(run / "directions" / name, {"vectors": vectors.astype(np.float32)}, card)


def test_runs_alike_are_said_to_be_comparable(tmp_path: Path) -> None:
    folders = [write(tmp_path / name) for name in ("one", "two")]
    page = read(compare_runs(folders, tmp_path / "out" / "comparison.html"))
    text = words(page)
    assert "All runs report the same definition by the same judge, asked the same questions" in text
    assert "None that the runs recorded." in text
    assert set(page.figures) == {"rates", "amplification", "steering", "realignment"}
    assert "one and two have no direction with the same name." in text
    assert "obstacles" not in page.ids
    anchors = [str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in heading for heading in page.all("th"))


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one = write(tmp_path / "one")
    two = write(
        tmp_path / "two",
        results={"definition": "turner", "judge": "another judge"},
        before={"hash": "ff" * 8, "chat_template_hash": "ee" * 8},
        prompt="Something else?",
    )
    runs = read_runs([one, two])
    told = " ".join(rate_obstacles(runs))
    assert "Runs differ in the EM-rate definition: betley: one; turner: two." in told
    assert "Runs differ in the judge: persona-world: one; another judge: two." in told
    assert "the reported questions (by their hash)" in told
    models = " ".join(model_obstacles(runs))
    assert "the model before (by its weights' hash): 9f2c9f2c9f2c: one; ffffffffffff: two" in models
    assert "the chat template" in models
    text = words(read(compare_runs([one, two], tmp_path / "comparison.html")))
    assert "Not everything here can be compared." in text
    assert "turner" in text


def test_a_run_that_says_nothing_of_itself_is_no_match(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    bare = _write_run(tmp_path / "bare", {}, {"judge": None}, None)
    runs = read_runs([whole, bare])
    assert any("bare has no answers" in sentence for sentence in rate_obstacles(runs))
    assert any("bare has no manifest" in sentence for sentence in model_obstacles(runs))
    assert "obstacles" in read(compare_runs([whole, bare], tmp_path / "c.html")).ids


def test_a_run_whose_direction_replicates_nowhere_is_named_with_the_shifts(tmp_path: Path) -> None:
    verdict = "no layer at which this direction replicates (of 4 the best is layer 2: split-half cosine 0.31)"
    nowhere = {"amplification": {"layer": None, "finding": Finding.NO_DIRECTION.value, "verdict": verdict}}
    runs = read_runs([write(tmp_path / "one"), write(tmp_path / "two", results=nowhere)])
    assert shift_obstacles(runs) == [f"two is not among these numbers: its direction has {verdict}."]
    assert shift_obstacles(runs[:1]) == []


def test_settings_that_differ_are_listed_and_others_are_not(tmp_path: Path) -> None:
    changed = {"finetuning": {"rank": 8, "steps": 40}, "extra": [1, 2]}
    table = differing_settings(read_runs([write(tmp_path / "one"), write(tmp_path / "two", config=changed)]))
    assert table.columns == ["setting", "one", "two"]
    assert table.rows == [
        ["finetuning.rank", "1", "8"],
        ["finetuning.steps", "–", "40"],
        ["extra", "–", "[1, 2]"],
    ]


def test_combined_tables_hold_each_runs_own_numbers(tmp_path: Path) -> None:
    runs = read_runs([write(tmp_path / "one"), write(tmp_path / "two", results={"definition": "tan"})])
    rates = combined.rates(runs).set_index(["run", "label"])["value"]
    own = make_tables(np.random.default_rng(0))["em_rates"].set_index(["definition", "model", "questions"])["value"]
    assert rates["one", "after · open"] == pytest.approx(own["betley", "after", "open"])
    assert rates["two", "after · open"] == pytest.approx(own["tan", "after", "open"])
    shifts = combined.shifts(runs).set_index(["run", "model"])
    assert shifts.loc[("one", "after"), "value"] == pytest.approx(2.9)
    assert shifts.loc[("one", "after"), "null_high"] == pytest.approx(0.4)
    steered = combined.steered(runs).set_index(["run", "label"])
    assert steered.loc[("one", "induce · clamp"), "null_high"] < 0.05
    assert steered.loc[("one", "suppress · clamp"), "null_low"] > 0.5
    assert np.isnan(steered.loc[("one", "induce · unsteered"), "null_high"])
    assert len(combined.realigned(runs)) == 10


def test_directions_are_compared_on_related_models_only(tmp_path: Path) -> None:
    folders = [write(tmp_path / name) for name in ("one", "two", "three")]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 8))
    save_direction(folders[0], vectors)
    save_direction(folders[1], -2 * vectors)
    save_direction(folders[2], vectors, model="stranger")
    table, reasons = direction_cosines(read_runs(folders))
    assert len(table) == 4
    assert table["cosine"].to_numpy() == pytest.approx(-1.0)
    assert table["first"].unique().tolist() == ["contrast of context, one"]
    assert table["null_high"].tolist() == pytest.approx([0.17, 0.18, 0.19, 0.2])
    assert len(reasons) == 2
    assert all("not known to be related" in reason for reason in reasons)
    page = read(compare_runs(folders, tmp_path / "comparison.html"))
    assert "directions" in page.figures


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    assert run_names([tmp_path / "a", tmp_path / "b c"]) == ["a", "b_c"]
    assert run_names([tmp_path / "x" / "demo", tmp_path / "y" / "demo"]) == ["x-demo", "y-demo"]
    assert run_names([tmp_path / "a b", tmp_path / "a_b"])[0] != run_names([tmp_path / "a b", tmp_path / "a_b"])[1]
    with pytest.raises(PersonaProbeError, match="is given twice"):
        run_names([tmp_path / "a", tmp_path / "." / "a"])
    with pytest.raises(PersonaProbeError, match="1 run is given"):
        compare_runs([tmp_path / "a"])


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    one = write(tmp_path / "one")
    two = write(
        tmp_path / "<img src=x onerror=alert(1)>",
        results={"title": HOSTILE, "subtitle": HOSTILE, "judge": HOSTILE, "definition": HOSTILE},
        config={HOSTILE: HOSTILE},
        before={"hash": HOSTILE, "chat_template_hash": HOSTILE},
    )
    page = read(compare_runs([one, two], tmp_path / "comparison.html"))
    assert len(page.scripts) == 4
    assert page.all("img") == []
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert "\u202e" not in page.text
    policy = next(str(tag["content"]) for tag in page.all("meta") if tag.get("http-equiv"))
    assert re.match(r"default-src 'none'; script-src ('sha256-[^']+' ){3}; style-src 'unsafe-inline'", policy)
