import re
from pathlib import Path

from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.judges.judge import judge_answers
from persona_probe.worlds.persona_world.oracle import OracleJudge

ROOT = Path(__file__).parents[2]


def test_the_page_runs_as_it_is_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs/latents.md").read_text(), re.DOTALL))
    names = {}
    exec(code, names)
    assert names["table"].row(names["villain"])["finding"] == "rose; too few controls"
    assert em_rate(judge_answers(OracleJudge(), names["answers"])).value < 0.3
