"""The benchmark runs, and the documents show its results and nothing else."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.own_environment.harness import measure
from benchmarks.shapes import SHAPES

ROOT = Path(__file__).parents[1]
RATIOS = (
    "capture.vs_bare",
    "capture.vs_research_loop",
    "capture.vs_bridge",
    "capture.vs_nnsight",
    "capture.bare_vs_research_loop",
    "capture.peak_memory_vs_bare",
    "pair.memory_vs_one",
    "pair.tensors_vs_one",
    "growth.time_ratio_10x",
    "growth.memory_ratio_10x",
    "steer.vs_plain_one_layer",
    "steer.vs_plain_all_layers",
    "steer.vs_plain_per_row",
    "steer.vs_plain_clamp",
    "steer.vs_plain_cap",
    "steer.vs_plain_dialogues",
    "steer.opening_seconds",
    "steer.bridge_vs_plain_bridge",
    "steer.vs_bridge",
    "steer.nnsight_vs_plain",
    "steer.vs_nnsight",
    "steer.vs_plain_one_layer_batch_1",
    "steer.one_layer_batch_1",
    "sweep.vs_one_by_one",
)


def python(*arguments, **environment):
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, check=False
    )


def test_the_documents_show_the_results_and_nothing_else():
    code = """
from benchmarks.table import between_markers, expected
for path, text in expected().items():
    assert between_markers(path.read_text(encoding="utf-8")) == text, f"{path}: run python -m benchmarks.table"
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    documents = {path: path.read_bytes() for path in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")}
    out = tmp_path / "results.json"
    out.write_text('{"elsewhere": {"vs_other": 2.0}, "raw": {"elsewhere": {"rounds": 1}}}')
    done = python("-m", "benchmarks", "--shape", "tiny", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    skipped = {name: why for raw in result["raw"].values() for name, why in raw.get("skipped", {}).items()}
    for ratio in RATIOS:
        section, name = ratio.split(".")
        value = result[section][name]
        assert skipped[name] if value is None else math.isfinite(value) and value > 0, ratio
    assert math.isfinite(result["import_seconds"])
    for section in ("capture", "pair", "import_seconds", "growth", "steer", "sweep"):
        assert set(result["raw"][section]["about"]) == {"shape", "model", "hardware", "versions", "date"}
    assert result["shape"] == "tiny"
    assert max(result["raw"]["capture"]["largest_relative_error"].values()) < 1e-3
    assert result["raw"]["capture"]["all_dialogues"]["variants"]["ours"]["tokens_per_second"] > 0
    assert min(result["raw"]["steer"]["agreement"].values()) > 0.95
    assert result["raw"]["sweep"]["alike"] > 0.95
    assert result["elsewhere"] == {"vs_other": 2.0}, "another section is kept"
    assert result["raw"]["elsewhere"] == {"rounds": 1}
    assert {path: path.read_bytes() for path in documents} == documents, "a run into another file leaves the tables"


@contextlib.contextmanager
def counting_from_each_forward(model, vectors, first=0):
    """A library that takes a token's place in the forward for its place in the text, as some do."""

    def hook_for(vector):
        def hook(_module, _args, output):
            output[:, first:] += vector

        return hook

    handles = [model.model.layers[layer].register_forward_hook(hook_for(vector)) for layer, vector in vectors.items()]
    yield
    for handle in handles:
        handle.remove()


def test_a_library_that_loses_its_place_under_the_cache_is_found_out():
    measured = measure("torch", counting_from_each_forward, lambda first: {"first": first}, SHAPES["tiny"], 1)
    checks = measured["checks"]
    assert checks["like_a_bare_hook"] == checks["cached_and_uncached"] == checks["closed_afterwards"] == 1.0
    assert checks["like_unsteered"] < 0.5
    assert checks["from_answer"]["uncached_like_a_bare_hook"] == 1.0
    assert checks["from_answer"]["cached_like_a_bare_hook"] < 0.5, "steered at the first new token only"
    assert measured["figures"]["vs_plain_all_layers"]["median"] > 0


def test_tiny_figures_do_not_get_into_the_results():
    done = python("-m", "benchmarks", "--shape", "tiny")
    assert done.returncode == 2
    assert "give --out" in done.stderr
