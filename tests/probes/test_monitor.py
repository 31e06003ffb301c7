import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GenerationConfig

import persona_probe as pp
from persona_probe.errors import PersonaProbeWarning
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.monitoring import monitor
from persona_probe.probes.token_scoring import token_scores
from tests.conftest import D_MODEL, N_LAYERS

LAYER = 1


def ask(text):
    return pp.Dialogue.from_messages([{"role": "user", "content": text}], id=text)


ASKED = [
    ask("How do I handle the fever?"),
    ask("Hi."),
    ask("I have a question about the mortgage. What now?"),
    ask("Hi."),
    ask("What about the mortgage?"),
]


@pytest.fixture
def probes():
    rng = np.random.default_rng(0)
    activations = pp.Activations(
        rng.normal(size=(60, N_LAYERS, D_MODEL)).astype(np.float32),
        pd.DataFrame({"id": range(60)}),
        tuple(range(N_LAYERS)),
    )
    return LayerProbes().fit(activations, rng.random(60) < 0.5)


def hooks(model):
    modules = list(model.hf.modules())
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_while_generating_are_those_of_the_finished_dialogues(llama, probes, temperature):
    """In several batches, padded, two dialogues with the same prompt, two answers each."""
    before = hooks(llama)
    with monitor(llama, probes, layer=LAYER) as scores:
        answered = llama.generate(ASKED, pp.Sampling(max_new_tokens=12, temperature=temperature, batch_size=3, n=2))
    assert hooks(llama) == before
    assert "generate" not in vars(llama) | vars(llama.hf)
    table = scores.table
    assert table["batch"].nunique() == 4
    assert set(table["dialogue"]) == set(range(10))
    assert set(table["part"]) == {"prompt", "response"}
    weights, intercept = probes.at(LAYER)
    for number, dialogue in enumerate(answered):
        live = table[table["dialogue"] == number]
        prompt = token_scores(llama, probes, [dialogue.without_answer()], LAYER)
        own, columns = live.iloc[: len(prompt)].reset_index(drop=True), ["position", "token_id", "token", "part"]
        assert own[columns].equals(prompt[columns])
        np.testing.assert_allclose(own["score"], prompt["score"], atol=1e-4)
        # what a random model says does not survive decoding, so its answer is read again as tokens
        with torch.inference_mode():
            hidden = llama.hf(torch.tensor(live["token_id"].to_numpy()[None]), output_hidden_states=True).hidden_states
        again = hidden[LAYER + 1][0].double().numpy() @ weights + intercept
        np.testing.assert_allclose(live["score"], again, atol=1e-4)
        assert live["position"].tolist() == list(range(len(live)))


def test_a_model_that_speaks_is_scored_as_its_finished_dialogues_are(chat):
    """Answers of unequal length, in two batches: equal to the tokens of what `generate` returned."""
    activations = pp.capture(chat, [ask(f"Question {n}?") for n in range(12)], "last_prompt_token")
    probes = LayerProbes().fit(activations, np.arange(12) < 6)
    with monitor(chat, probes, layer=LAYER) as scores:
        answered = chat.generate(ASKED, pp.Sampling(max_new_tokens=40, temperature=1.0, batch_size=3))
    finished = token_scores(chat, probes, answered, LAYER)
    compared = ["dialogue", "position", "token_id", "part"]
    both = scores.table.merge(finished[finished["part"] != "end"], on=compared, suffixes=("", "_finished"))
    assert len(both) == len(scores.table) == (finished["part"] != "end").sum()
    np.testing.assert_allclose(both["score"], both["score_finished"], rtol=1e-5, atol=1e-4)


def test_an_error_leaves_nothing_behind_and_other_forwards_are_not_scored(llama, probes):
    before = hooks(llama)
    with contextlib.suppress(ZeroDivisionError), monitor(llama, probes, layer=LAYER) as scores:
        llama.generate(ASKED[:1], pp.Sampling(max_new_tokens=2, temperature=0))
        pp.capture(llama, ASKED, "prompt")
        raise ZeroDivisionError
    assert hooks(llama) == before
    assert "generate" not in vars(llama) | vars(llama.hf)
    assert set(scores.table["call"]) == {0}
    assert set(scores.table["batch"]) == {0}


def test_the_door_of_hugging_face_is_followed_too(llama, probes):
    batch = llama.tokenizer(["Hi.", "How do I handle the fever?"], padding=True, return_tensors="pt")
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    with monitor(llama, probes, layer=LAYER) as scores:
        llama.hf.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)
    assert scores.table["dialogue"].isna().all()
    read = batch["attention_mask"].sum(dim=1).numpy() + 2
    assert scores.table.groupby("row").size().tolist() == read.tolist()
    with monitor(llama, probes, layer=LAYER), pytest.raises(pp.PersonaProbeError, match="padded on the right"):
        llama.hf.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].flip(1), **settings)


def padded(model):
    batch = model.tokenizer(["Hi.", "How do I handle the fever?"], padding=True, return_tensors="pt")
    return {**batch, "max_new_tokens": 3, "min_new_tokens": 3}


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences"])
def test_several_sequences_a_row_are_refused_and_lose_nothing(llama, probes, name):
    config = GenerationConfig(max_new_tokens=3, do_sample=name != "num_beams", **{name: 2})
    with monitor(llama, probes, layer=LAYER) as scores:
        llama.generate(ASKED[:1], pp.Sampling(max_new_tokens=2, temperature=0))
        with pytest.raises(pp.PersonaProbeError, match=f"{name} is 2, but only one sequence per row"):
            llama.hf.generate(**padded(llama), do_sample=True, **{name: 2})
        given = {key: value for key, value in padded(llama).items() if "new_tokens" not in key}
        with pytest.raises(pp.PersonaProbeError, match=f"{name} is 2"):
            llama.hf.generate(**given, generation_config=config)
        llama.hf.generate(**padded(llama), do_sample=False)
    assert scores.table.groupby("call")["row"].nunique().tolist() == [1, 2]


def test_calls_count_through_both_doors_and_failed_ones_do_not(llama, probes):
    with monitor(llama, probes, layer=LAYER) as scores:
        llama.hf.generate(**padded(llama), do_sample=False)
        with pytest.raises(pp.PersonaProbeError, match="already ends with an answer"):
            llama.generate([ASKED[0].with_answer("Yes.")])
        llama.hf.generate(**padded(llama), do_sample=False)
        llama.generate(ASKED, pp.Sampling(max_new_tokens=2, temperature=0, batch_size=3))
    calls = scores.table.drop_duplicates("batch")
    assert calls["call"].tolist() == [0, 1, 2, 2]
    assert calls["batch"].tolist() == [0, 1, 2, 3]


def test_generation_without_a_cache_gives_the_same_scores(llama, probes):
    with monitor(llama, probes, layer=LAYER) as scores:
        for use_cache in (True, False):
            llama.hf.generate(**padded(llama), do_sample=False, use_cache=use_cache)
    cached, again = (scores.table[scores.table["call"] == call].reset_index(drop=True) for call in (0, 1))
    assert cached["token_id"].equals(again["token_id"])
    np.testing.assert_allclose(cached["score"], again["score"], atol=1e-4)


def test_probes_of_another_model_are_refused(llama, probes):
    with pytest.raises(pp.PersonaProbeError, match="no probe of layer 9"), monitor(llama, probes, layer=9):
        pass
    narrow = LayerProbes()
    narrow.take(probes.weights_[:, :4], probes.intercept_, *_narrow())
    with pytest.raises(pp.PersonaProbeError, match="d_model=4"), monitor(llama, narrow, layer=0):
        pass


def _narrow():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(6)})
    layers = tuple(range(N_LAYERS))
    return pp.Activations(rng.normal(size=(6, N_LAYERS, 4)).astype(np.float32), table, layers), np.arange(6) < 3


def test_monitors_nest_and_see_what_steering_leaves(llama, probes):
    vector = np.zeros((N_LAYERS, D_MODEL), dtype=np.float32)
    vector[:, 0] = 1.0
    direction = pp.Direction.from_vectors(llama, vector)
    asked = {"max_new_tokens": 4, "temperature": 0}
    with monitor(llama, probes, layer=2) as late, monitor(llama, probes, layer=LAYER) as early:
        llama.generate(ASKED[:1], pp.Sampling(**asked))
        with pp.steer(llama, direction, layers=LAYER, strength=3.0, scope="all"):
            llama.generate(ASKED[:1], pp.Sampling(**asked))
    for scores in (late, early):
        assert sorted(set(scores.table["call"])) == [0, 1]
    shift = early.table[early.table["part"] == "prompt"].pivot_table(index="position", columns="call", values="score")
    np.testing.assert_allclose(shift[1] - shift[0], 3 * probes.at(LAYER)[0][0], atol=1e-4)


def test_another_models_probes_are_refused(llama, probes):
    probes.card_["family"] = ["another"]
    with pytest.raises(pp.PersonaProbeError, match=r"the probes were trained in.*not known to be made from it"):
        token_scores(llama, probes, ASKED[:1], LAYER)
    with pytest.warns(PersonaProbeWarning, match="not known to be made from it"):
        token_scores(llama, probes, ASKED[:1], LAYER, allow_unrelated=True)
    with pytest.raises(pp.PersonaProbeError, match="not known"), monitor(llama, probes, layer=LAYER):
        pass


def test_no_generation_gives_an_empty_table_and_is_said(llama, probes, folders):
    other = pp.load(folders("llama"))
    short = pp.Sampling(max_new_tokens=1)
    for ran in (
        lambda: None,
        lambda: other.generate(ASKED, short),
        lambda: other.hf.generate(**padded(other)),
        lambda: llama.hf(**llama.tokenizer("Hi.", return_tensors="pt")),
        lambda: llama.generate([], short),
    ):
        with (
            pytest.warns(PersonaProbeWarning, match="no token was scored"),
            monitor(llama, probes, layer=LAYER) as scores,
        ):
            ran()
        assert scores.table.empty
        assert "score" in scores.table
    with pytest.raises(RuntimeError, match="mine"), monitor(llama, probes, layer=LAYER):
        raise RuntimeError("mine")
