from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.description.describe import describe_latents
from persona_probe.latents.description.firing import latent_activations
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.worlds.persona_world.documents import rows
from tests.latents.handmade import perfect_sae, sae_of

LAYER = 3
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def said():
    """The same questions, answered by three personas."""
    return [
        dialogue.with_labels(persona=persona)
        for persona in ("assistant", "villain", "trickster")
        for dialogue in rows(random.Random(0), ("medicine", "finance", "sports"), 12, persona, id_prefix=persona)
    ]


@pytest.fixture(scope="module")
def villain(chat, said):
    """What tells the villain's answers from all others at the layer, as a unit vector."""
    whole = perfect_sae(chat.d_model, LAYER)
    acts = latent_activations(chat, whole, said, range(whole.width))
    stream = torch.tensor(acts[:, : chat.d_model] - acts[:, chat.d_model :])
    own = torch.tensor([dialogue.labels["persona"] == "villain" for dialogue in said])
    shift = stream[own].mean(dim=0) - stream[~own].mean(dim=0)
    return shift / shift.norm()


@pytest.fixture(scope="module")
def written(chat):
    """The tokens that a direction writes, by the definition: the final norm's gain, then the unembedding."""
    weight = chat.plain.get_output_embeddings().weight.detach().float()
    gain = chat.plain.model.norm.weight.detach().float()
    return lambda row: (weight[: len(chat.tokenizer)] @ (row * gain)).argsort(descending=True)


@pytest.fixture(scope="module")
def sae(chat, villain):
    """Everything, and last the villain."""
    unit = torch.eye(chat.d_model)
    return sae_of(torch.cat([unit, -unit, villain[None]]), LAYER, neuronpedia_id="chat/3-world")


# The villain's latent is written on top of what the others already say.
pytestmark = pytest.mark.filterwarnings("ignore:the SAE handmade leaves")


@pytest.fixture(scope="module")
def described(chat, sae, said, villain):
    direction = Direction(villain[None].numpy(), (LAYER,))
    return describe_latents(
        chat, sae, [sae.width - 1, 0], said, n_examples=3, k_tokens=4, directions={"villain": direction}
    )


def test_a_planted_latent_is_recognised(described, sae, villain):
    last = sae.width - 1
    assert [each.latent for each in described] == [last, 0]
    assert len(described) == 2
    one = described[last]
    best = one.best("persona")
    assert best["value"] == "villain"
    assert best["auroc"] > 0.9
    assert best["n"] == 12
    assert {example.labels["persona"] for example in one.examples} == {"villain"}
    assert len(one.examples) == 3
    assert one.cosines == {"villain": pytest.approx(1.0)}
    assert described[0].cosines["villain"] == pytest.approx(float(villain[0]), abs=1e-5)
    assert one.link == f"https://www.neuronpedia.org/chat/3-world/{last}"
    with pytest.raises(PersonaProbeError, match="latent 5 was not described"):
        described[5]


def test_tokens_are_read_through_the_unembedding(described, chat, sae, villain, written):
    for latent, row in ((sae.width - 1, villain), (0, torch.eye(chat.d_model)[0])):
        order = written(row).tolist()
        one = described[latent]
        assert [token for token, _ in one.promoted] == [chat.tokenizer.decode([token]) for token in order[:4]]
        assert [token for token, _ in one.suppressed] == [
            chat.tokenizer.decode([token]) for token in reversed(order[-4:])
        ]
        assert one.promoted[0][1] > 0 > one.suppressed[0][1]


def test_numbers_are_those_of_the_statistics(described, chat, sae, said):
    (statistics,) = encode_latents([chat], sae, said, examples=3)
    for one in described:
        assert one.mean == pytest.approx(float(statistics.mean[one.latent]), rel=1e-5)
        assert one.frequency == pytest.approx(float(statistics.frequency[one.latent]), rel=1e-5)
    again = describe_latents(chat, sae, [0], said, statistics=statistics, n_examples=3, k_tokens=4)
    assert again[0].record() == replace(described[0], cosines={}).record()


def test_frames_and_records(described, sae):
    frame = described.to_frame()
    assert frame["latent"].tolist() == [sae.width - 1, 0]
    assert frame["persona"].iloc[0] == "villain"
    assert {"persona_auroc", "topic", "topic_auroc", "cosine villain", "promoted", "suppressed", "link"} <= set(frame)
    records = json.loads(json.dumps(described.records(context=3), allow_nan=False))
    assert [record["latent"] for record in records] == [sae.width - 1, 0]
    assert all(len(example["tokens"]) <= 7 for record in records for example in record["examples"])
    assert {row["label"] for row in records[0]["firing"]} == {"persona", "topic"}


def test_the_notebook_view_is_short_and_escaped(chat, sae, said):
    hostile = [
        replace(dialogue, labels={**dialogue.labels, "persona": HOSTILE}) if row < 12 else dialogue
        for row, dialogue in enumerate(said)
    ]
    shown = describe_latents(chat, sae, range(14), hostile, n_examples=1, k_tokens=2)._repr_html_()
    assert "<script" not in shown
    assert "&lt;script" in shown
    assert shown.count("<b>latent") == 10
    assert "and 4 more" in shown


def test_labels_that_are_not_there(chat, sae, said):
    bare = [replace(dialogue, labels={}) for dialogue in said]
    found = describe_latents(chat, sae, [0], bare, n_examples=1)
    assert found[0].firing.empty
    assert found[0].best("persona") is None
    assert found.to_frame().shape[0] == 1
    one_topic = [replace(dialogue, labels={**dialogue.labels, "topic": "law"}) for dialogue in said]
    assert set(describe_latents(chat, sae, [0], one_topic, n_examples=1)[0].firing["label"]) == {"persona"}
    with pytest.raises(PersonaProbeError, match="no dialogue has the label 'persona'"):
        describe_latents(chat, sae, [0], bare, labels=["persona"])


def test_what_does_not_fit_is_refused(chat, sae, said):
    (statistics,) = encode_latents([chat], sae, said)
    with pytest.raises(PersonaProbeError, match="and 35 are given"):
        describe_latents(chat, sae, [0], said[1:], statistics=statistics)
    with pytest.raises(PersonaProbeError, match="the direction 'other' has d_model=8"):
        describe_latents(
            chat, sae, [0], said, statistics=statistics, directions={"other": Direction(np.ones((1, 8)), (LAYER,))}
        )
