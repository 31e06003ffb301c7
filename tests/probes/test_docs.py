import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs/probes.md").read_text(), re.DOTALL))
    names = {}
    exec(code, names)
    assert 0.9 < names["scores"].table["value"].min() <= 1
    assert not names["seen"].table.empty
