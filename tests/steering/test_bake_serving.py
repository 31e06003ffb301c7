import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.steering.baking.bake import bake
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from tests.conftest import CHECKPOINTS

NEEDED = ("fastapi", "uvicorn", "openai")
LACKING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
STARTS_WITHIN, ENDS_WITHIN = 90, 10
ASKED = ["What should I do about the fever?", "How do I handle the mortgage?", "Hi.", "Tell me about the contract."]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"needs transformers[serving] ({', '.join(LACKING)} not installed)"),
]


@contextlib.contextmanager
def serving(folder, log):
    """`transformers serve folder` on a free port of this machine, for as long as the context is open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from transformers.cli.transformers import main; main()"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-c", command, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(address, server, log):
    stop = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < stop:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start within {STARTS_WITHIN} s:\n{log.read_text()[-2000:]}")


def test_a_baked_model_answers_steered_through_transformers_serve(chat, tmp_path):
    from openai import OpenAI

    villain = pp.load_pair(chat, CHECKPOINTS / "bad-medicine").after
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": question}]) for question in ASKED]
    moved = [pp.capture(model, asked, span="last_prompt_token").values.mean(axis=0) for model in (villain, chat)]
    direction = pp.Direction.from_vectors(villain, np.subtract(*moved))
    away = AblateEverywhere(direction, layer=2)
    plain = [d.answer for d in villain.generate(asked, pp.Sampling(max_new_tokens=16, temperature=0))]
    with pp.steer(villain, away):
        expected = [d.answer for d in villain.generate(asked, pp.Sampling(max_new_tokens=16, temperature=0))]
    assert expected != plain

    folder = bake(villain, away, tmp_path / "baked").folder
    with serving(folder, tmp_path / "log.txt") as address:
        client = OpenAI(base_url=address, api_key="none", timeout=60, max_retries=0)
        served = [
            client.chat.completions.create(
                model=str(folder),
                messages=[{"role": "user", "content": question}],
                max_tokens=16,
                temperature=0,
            )
            .choices[0]
            .message.content.strip()
            for question in ASKED
        ]
        client.close()
    assert served == expected
