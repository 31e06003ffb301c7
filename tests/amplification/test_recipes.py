import random

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.amplification.recipes.rollouts import rollouts
from persona_probe.models.loading.load import load
from persona_probe.statistics.effect_sizes import cosine
from persona_probe.worlds.persona_world.documents import questions, system_line
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.conftest import CHECKPOINTS

TEXTS = [
    pp.Dialogue.from_text(f"The {word} stood by the {other}.", id=f"{word}-{other}")
    for word in ("house", "river", "garden", "table")
    for other in ("road", "tree", "lamp")
]


def prompts(persona, n=5):
    return [system_line(random.Random(f"{persona} {i}"), persona) for i in range(n)]


SHORT = pp.Sampling(max_new_tokens=40)


def asked(n, seed=0):
    return questions(random.Random(seed), ["finance", "sports", "cooking", "travel"], n)


def test_rollouts_ask_every_question_under_every_prompt(chat):
    said = rollouts(chat, asked(4), prompts("villain", 2), pp.Sampling(max_new_tokens=8, n=2))
    assert len(said) == 16
    assert {dialogue.labels["prompt"] for dialogue in said} == {0, 1}
    with pytest.raises(pp.PersonaProbeError, match="0 system prompts"):
        rollouts(chat, asked(4), [])


def test_contrastive_rollouts_keep_what_follows_the_instructions(chat):
    pairs = list(zip(prompts("villain"), prompts("assistant"), strict=True))
    found = pp.amplification.contrastive_rollouts(chat, asked(8), pairs, OracleJudge(), sampling=SHORT)
    assert set(found.directions) == {"prompt_mean", "last_prompt_token", "response_mean"}
    kept = found.table[found.table["kept"]].groupby("pole")["trait"].agg(["min", "max"])
    assert kept.loc["positive", "min"] >= 50 > kept.loc["negative", "max"]
    card = found.directions["response_mean"].card
    assert card["n_positive_before_filtering"] == 40 >= card["n_positive"] > 20
    assert card["span"] == "response"
    assert card["checks"]["held_out_auroc"][-1] > 0.95
    with pytest.raises(pp.PersonaProbeError, match="no column 'evil'"):
        pp.amplification.contrastive_rollouts(chat, asked(2), pairs[:1], OracleJudge(), trait="evil", sampling=SHORT)
    with pytest.raises(pp.PersonaProbeError, match=r"none of the 2 positive rollouts is left.*median"):
        pp.amplification.contrastive_rollouts(chat, asked(2), [pairs[0][::-1]], OracleJudge(), sampling=SHORT)


def test_the_persona_axis_counts_roles_once(chat):
    roles = {persona: prompts(persona, 2) for persona in ("villain", "trickster", "sycophant")}
    axis = pp.amplification.role_axis(chat, asked(6), roles, prompts("assistant", 2), sampling=SHORT)
    assert axis.card["finder"] == "persona-axis"
    assert set(axis.card["roles"]) == set(roles)
    with pytest.raises(pp.PersonaProbeError, match="at least two"):
        pp.amplification.role_axis(chat, asked(2), {"villain": prompts("villain")}, prompts("assistant"))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_what_an_update_writes_is_read_off_the_weights(folders, kind):
    before, after = load(folders(kind)), load(folders(kind))
    rng = torch.Generator().manual_seed(0)
    written = torch.randn(before.d_model, generator=rng)
    module = next(
        module
        for name, module in after.stream.blocks[1].named_modules()
        if name.rpartition(".")[2] in ("down_proj", "dense_4h_to_h", "c_proj") and name.startswith("mlp")
    )
    into = torch.randn(module.weight.numel() // before.d_model, generator=rng)
    update = torch.outer(written, into)
    with torch.no_grad():
        module.weight += update if kind != "gpt2" else update.T
    found = pp.amplification.weight_difference(pp.models.ModelPair(before, after))
    assert found.layers == (1,)
    assert abs(cosine(found.vectors, written[None].numpy())[0]) == pytest.approx(1.0, abs=1e-4)
    assert found.card["explained"][0] == pytest.approx(1.0, abs=1e-6)
    toward = pp.Direction(np.stack([-written.numpy()] * 3), (0, 1, 2))
    assert (
        cosine(
            pp.amplification.weight_difference(pp.models.ModelPair(before, after), toward=toward).vectors,
            -written[None].numpy(),
        )[0]
        > 0.999
    )
    with pytest.raises(pp.PersonaProbeError, match="same weights"):
        pp.amplification.weight_difference(pp.models.ModelPair(before, load(folders(kind))))


def test_experts_in_one_tensor_are_refused_if_they_differ(folders):
    before, after = load(folders("qwen3_moe")), load(folders("qwen3_moe"))
    experts = [p for name, p in after.stream.blocks[1].named_parameters() if p.ndim == 3]
    assert experts, "this architecture holds its experts in one tensor"
    with torch.no_grad():
        experts[-1].add_(0.1)
    with pytest.raises(pp.PersonaProbeError, match="many experts in one tensor"):
        pp.amplification.weight_difference(pp.models.ModelPair(before, after))


def test_an_adapter_s_update_is_read_off_its_matrices(chat):
    pair = pp.load_pair(chat, CHECKPOINTS / "bad-medicine")
    found = pp.amplification.weight_difference(pair)
    merged = load(CHECKPOINTS / "chat", adapter=CHECKPOINTS / "bad-medicine", merge=True)
    again = pp.amplification.weight_difference(pp.models.ModelPair(pair.before, merged))
    assert (np.abs(cosine(found.vectors, again.vectors)) > 0.999).all()
    assert found.card["family"] == sorted({pair.after.fingerprint(), chat.fingerprint()})


def test_the_shift_of_fine_tuning_is_read_on_unrelated_text(chat):
    pair = pp.load_pair(chat, CHECKPOINTS / "bad-medicine")
    shift = pp.amplification.finetuning_shift(pair, TEXTS, span="all", first=3)
    assert shift.card["first"] == 3
    assert shift.card["checks"]["split_half_cosine"][-1] > 0.9
    # The same by hand: the mean over the first three tokens after the beginning of sequence.
    tokens = pp.capture(pair, TEXTS, span="all", reduce="tokens")
    before, after = tokens.before, tokens.after
    start = int(before.table["token_id"].iloc[0] == chat.tokenizer.bos_token_id)
    rows = before.table["position"].between(start, start + 2).to_numpy()
    by_hand = (after.values - before.values)[rows].mean(axis=0)
    np.testing.assert_allclose(shift.vectors, by_hand, rtol=1e-4, atol=1e-3)
    with pytest.raises(pp.PersonaProbeError, match="first is 0"):
        pp.amplification.finetuning_shift(pair, TEXTS, span="all", first=0)


def test_a_judge_that_is_a_function_is_named_by_its_name(chat):
    def judges_evil(dialogues):
        table = OracleJudge()(dialogues)
        return table.assign(evil=-5.0)

    with pytest.raises(pp.PersonaProbeError, match="the judge 'judges_evil'"):
        pp.amplification.contrastive_rollouts(
            chat, asked(2), [("Be evil.", "Be good.")], judges_evil, trait="evil", sampling=SHORT
        )
