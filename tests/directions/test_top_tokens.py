import numpy as np
import pandas as pd
import pytest
import torch

import persona_probe as pp
from persona_probe.directions.top_tokens import final_norm, top_tokens
from persona_probe.models.loading.load import load
from tests.conftest import D_MODEL, N_LAYERS

NAMES = {
    "llama": "norm",
    "qwen2": "norm",
    "gpt2": "ln_f",
    "gpt_neox": "final_layer_norm",
    "bloom": "ln_f",
    "gemma": "norm",
}


def planted(model, token_id):
    row = model.plain.get_output_embeddings().weight[token_id].detach().float().numpy()
    return pp.Direction(np.stack([row, -row]).astype(np.float32), (0, N_LAYERS - 1))


def of(direction, model, **options):
    return top_tokens(model, direction.vectors, direction.layers, **options)


def longest_row(model):
    """Its product with itself is the largest there is."""
    rows = model.plain.get_output_embeddings().weight[: len(model.tokenizer)]
    return int((rows - rows.mean(dim=1, keepdim=True)).norm(dim=1).argmax())


def test_an_unembedding_row_promotes_its_own_token(any_model):
    token_id = longest_row(any_model)
    table = of(planted(any_model, token_id), any_model, k=4)
    assert list(table.columns) == ["layer", "rank", "side", "token", "token_id", "logit", "final_norm"]
    assert len(table) == 2 * 2 * 4
    assert table["final_norm"].all()
    first = table[(table["rank"] == 1)].set_index(["layer", "side"])["token_id"]
    assert first[0, "promoted"] == token_id
    assert first[N_LAYERS - 1, "suppressed"] == token_id
    promoted = table[(table["layer"] == 0) & (table["side"] == "promoted")]
    assert promoted["logit"].is_monotonic_decreasing
    assert promoted["token"].iloc[0] == any_model.tokenizer.decode([token_id])


@pytest.mark.parametrize("kind", NAMES)
def test_logits_are_those_of_the_models_own_norm_and_head(folders, kind):
    """To first order, what a small step along the direction changes, where the stream has length sqrt(d) and mean 0."""
    model = load(folders(kind))
    norm = final_norm(model)
    assert norm is dict(model.stream.backbone.named_children())[NAMES[kind]]
    generator = torch.Generator().manual_seed(1)
    step, stream = torch.randn(2, D_MODEL, generator=generator)
    basis = torch.linalg.qr(torch.stack([step, torch.ones(D_MODEL)]).T)[0]
    stream -= basis @ (basis.T @ stream)  # mean 0, and a step leaves the length as it is
    stream /= stream.pow(2).mean().sqrt()
    unit = step / step.norm() * 1e-2
    head = model.plain.get_output_embeddings()
    with torch.no_grad():
        change = (head(norm(stream + unit)) - head(norm(stream - unit))) / 2e-2
    direction = pp.Direction(step.numpy()[None], (1,))
    table = of(direction, model, k=len(model.tokenizer), center=False)
    ours = table[table["side"] == "promoted"].set_index("token_id")["logit"].sort_index()
    np.testing.assert_allclose(ours, change[: len(ours)], atol=1e-3 * float(change.abs().max()))


def test_centring_moves_all_logits_alike_and_layers_can_be_chosen(llama):
    direction = planted(llama, 5)
    raw = of(direction, llama, k=3, center=False)
    centred = of(direction, llama, k=3)
    assert list(raw["token_id"]) == list(centred["token_id"])
    assert (raw["logit"] - centred["logit"]).groupby(raw["layer"]).std().max() < 1e-5
    assert set(direction.top_tokens(llama, layers=0).to_frame()["layer"]) == {0}
    with pytest.raises(pp.PersonaProbeError, match="has no layer 1"):
        direction.top_tokens(llama, layers=[1])


def test_length_does_not_matter_and_padding_rows_are_no_tokens(llama):
    direction = planted(llama, 5)
    longer = pp.Direction(direction.vectors * 7, direction.layers)
    np.testing.assert_allclose(of(direction, llama)["logit"], of(longer, llama)["logit"], rtol=1e-5)
    llama.plain.resize_token_embeddings(len(llama.tokenizer) + 13)
    assert of(direction, llama, k=10**6)["token_id"].max() == len(llama.tokenizer) - 1


def test_a_model_without_a_norm_says_so(llama):
    llama.plain.model.norm = torch.nn.Identity()
    table = of(planted(llama, longest_row(llama)), llama, k=1)
    assert not table["final_norm"].any()
    assert table["token_id"].iloc[0] == longest_row(llama)


def test_what_cannot_be_read_is_refused(llama, folders):
    wide = pp.Direction(np.ones((1, 2 * D_MODEL), dtype=np.float32), (0,))
    with pytest.raises(pp.PersonaProbeError, match=rf"d_model={2 * D_MODEL}.* {D_MODEL}"):
        of(wide, llama)
    narrow = pp.Direction(np.ones((1, D_MODEL), dtype=np.float32), (0,))
    with pytest.raises(pp.PersonaProbeError, match="k=0"):
        of(narrow, llama, k=0)
    with pytest.raises(pp.PersonaProbeError, match=r"behind a projection"):
        of(narrow, load(folders("opt_350m")))


def test_one_layer_is_asked_for_as_layer(llama):
    direction = pp.Direction.from_vectors(llama, np.eye(llama.n_layers, llama.d_model))
    one = direction.top_tokens(llama, layer=1, k=2).table
    assert set(one["layer"]) == {1}
    pd.testing.assert_frame_equal(one, direction.top_tokens(llama, layers=[1], k=2).table)
    with pytest.raises(pp.PersonaProbeError, match="layer=1 and layers=0 were given; give one of them"):
        direction.top_tokens(llama, layer=1, layers=0)
