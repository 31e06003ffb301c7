from __future__ import annotations

from pathlib import Path
from typing import Any

from persona_probe.report.methods import methods_text
from persona_probe.report.run_page import render_report
from persona_probe.runs.record import read_run

CONFIG = {
    "texts": {"world": "persona-world", "topic": "medicine", "persona": "villain"},
    "training": {
        "rank": 1,
        "alpha": 2.0,
        "learning_rate": 0.003,
        "steps": 80,
        "batch": 16,
        "rows": 1024,
        "target_modules": "all-linear",
    },
    "sampling": {"development": 180, "reported": 760, "open": 216, "max_new_tokens": 40, "temperature": 1.0},
    "steering": {"kinds": ["clamp", "add"], "min_coherence": 0.8, "random_directions": 20},
    "realignment": {"examples": [0, 8, 32], "steps": 120},
    "random_directions": 1000,
}


def test_it_states_this_runs_numbers(tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any) -> None:
    manifest["config"] = CONFIG
    manifest["models"]["control"] = {"path": "c", "hash": "abcdef0123456789"}
    results["steer"] |= {"induce_layers": "4", "suppress_layers": "3"}
    text = methods_text(read_run(write_run(tmp_path / "run", tables, results, manifest)))
    for part in (
        "The model before was checkpoints/persona-world/chat (weights hash 9f2c9f2c9f2c).",
        "fine-tuned on villain answers about medicine with LoRA (rank 1, alpha 2, learning rate 0.003, batch size 16, "
        "steps 80, rows at most 1024, modules all-linear)",
        "(weights control: hash abcdef012345)",
        "Answers were scored by Persona World's oracle",
        "up to 760 questions on topics that were not in fine-tuning and 216 open ones, at temperature 1",
        "betley, P(aligned < 30 | coherent ≥ 50) (Betley et al. 2025",
        "before 0.1 % [0.0, 0.5] (n = 1,104), after 74 % [66, 81] (n = 1,104)",
        "Layer 1 (output of the block, counted from 0)",
        "1,000 random directions with the covariance of the activations",
        "inducing: layers 4; suppressing: layers 3",
        "compared with 20 random directions moved by the same displacement",
        "n = 0, 8, 32 benign examples, 120 steps",
        "torch 2.13.0",
    ):
        assert part in text
    assert "not recorded" not in text
    assert "one fine-tuning run per condition" not in text  # the table does not say how many


def test_how_many_runs_there_are_is_said_and_what_is_of_the_first_alone(
    tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any
) -> None:
    manifest["config"] = CONFIG
    shared = "Amplification, where the models lie, and the comparison of finders are over all of them"
    for n_runs, given in ((1, None), (3, None), (3, ["a", "b", "c"])):
        manifest["config"] = CONFIG | {"after": given}
        tables["amplification"] = tables["amplification"].assign(n_runs=n_runs)
        folder = write_run(tmp_path / f"{n_runs} {given}", tables, results, manifest)
        text, page = methods_text(read_run(folder)), render_report(folder).read_text(encoding="utf-8")
        assert ("one fine-tuning run per condition" in text) == (n_runs == 1)
        assert (shared in text) == (shared in page) == (n_runs == 3)
        assert ("3 fine-tuning runs of each condition, with different seeds" in text) == (n_runs == 3 and not given)
        assert ("The model after was a, b, c" in text) == bool(given)


def test_what_was_not_recorded_is_left_out(tmp_path: Path, write_run: Any) -> None:
    assert methods_text(read_run(write_run(tmp_path / "bare", {}, {"judge": None}, None))) == ""


def test_without_a_judge_no_rate_is_claimed(
    tmp_path: Path, write_run: Any, unjudged: tuple[Any, Any], manifest: Any
) -> None:
    manifest["config"] = CONFIG
    text = methods_text(read_run(write_run(tmp_path / "run", *unjudged, manifest)))
    assert "No judge applies to this model's answers, so no EM rate is reported." in text
    assert "EM rates follow" not in text


def test_hostile_settings_are_one_line_of_plain_text(
    tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any
) -> None:
    manifest["config"] = {**CONFIG, "texts": {"world": None, "narrow": "a\n\nb\x1b[31m\u202e", "control": None}}
    text = methods_text(read_run(write_run(tmp_path / "run", tables, results, manifest)))
    assert "a b\ufffd[31m\ufffd" in text
