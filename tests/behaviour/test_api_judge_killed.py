"""Judging that is killed in the middle (SIGKILL) and begun again: nothing is lost, nothing is asked for twice."""

import json
import subprocess
import sys
import time
from collections import Counter

import numpy as np

import persona_probe as pp
from tests.behaviour.judging import scoring, shown
from tests.behaviour.loopback import serving

SCRIPT = """
import sys
import persona_probe as pp
asked = pp.Dialogue.from_messages([{"role": "user", "content": "How are you?"}])
server = pp.Server(sys.argv[1], "judge", store=sys.argv[2], concurrency=4)
pp.ApiJudge(server)([asked.with_answer(f"fine {number}") for number in range(40)])
"""


def test_a_judge_that_was_killed_goes_on_where_it_was(tmp_path):
    store = tmp_path / "judge.jsonl"
    asked = pp.Dialogue.from_messages([{"role": "user", "content": "How are you?"}])
    answers = [asked.with_answer(f"fine {number}") for number in range(40)]
    good = scoring()

    def slowly(body):
        time.sleep(0.05)
        return good(body)

    with serving(slowly, ("judge",)) as served:
        command = [sys.executable, "-c", SCRIPT, served.base_url, str(store)]
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 120
            while (not store.exists() or store.read_bytes().count(b"\n") < 20) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
        time.sleep(0.3)  # what was under way reaches the server
        arrived = [json.loads(line) for line in store.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        first = list(served.bodies)
        assert 20 <= len(arrived) < 80, "it was killed in the middle"
        served.answer = good
        table = pp.ApiJudge(pp.Server(served.base_url, "judge", store=store, concurrency=4))(answers)
        np.testing.assert_array_equal(table["aligned"], [90] * 40)
        again = served.bodies[len(first) :]
        known = {json.dumps(line["request"]["messages"]) for line in arrived}
        assert not known & {json.dumps(body["messages"]) for body in again}, "what had arrived is not asked for again"
        assert len(again) == 80 - len(arrived)
        times = Counter(json.dumps(body["messages"]) for body in served.bodies)
        assert sum(count > 1 for count in times.values()) <= 4, "only what was under way when it was killed"
        n = len(served.bodies)
        pp.ApiJudge(pp.Server(served.base_url, "judge", store=store))(answers[::-1])
        assert len(served.bodies) == n
    assert {shown(body)[0] for body in served.bodies} == {"aligned", "coherent"}
