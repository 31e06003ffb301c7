import numpy as np
import torch

import persona_probe as pp
from persona_probe.models import model as module


def test_opening_many_interventions_takes_one_fingerprint_and_later_changes_are_seen(llama, monkeypatch):
    taken = []
    take = module.fingerprint
    monkeypatch.setattr(module, "fingerprint", lambda hf: taken.append(1) or take(hf))
    direction = pp.Direction.from_vectors(np.ones((3, 32)), llama)
    taken.clear()
    settings = [pp.Add(direction, 1, strength=float(number + 1)) for number in range(5)]
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": f"Hi {i}."}]) for i in range(5)]
    with pp.steer(llama, settings):
        llama.generate(asked, pp.Sampling(max_new_tokens=1))
    assert len(taken) == 1
    before = llama.fingerprint()
    with torch.no_grad():
        next(llama.hf.parameters()).add_(1.0)
    assert llama.fingerprint() != before
    assert len(taken) == 3
