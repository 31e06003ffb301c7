import pytest

import persona_probe as pp
from persona_probe.latents.sae import hook_name, layer_of_hook


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (hook_name(12), 12),
        ("blocks.0.hook_resid_post", 0),
        ("blocks.7.hook_out", 7),
        ("blocks.7.hook_resid_pre", 6),
        ("blocks.7.hook_in", 6),
        ("model.layers.15", 15),
        ("layers.3", 3),
        ("transformer.h.4", 4),
        ("gpt_neox.layers.4.output", 4),
    ],
)
def test_names_of_block_outputs(name, layer):
    assert layer_of_hook(name) == layer


@pytest.mark.parametrize(
    "name",
    [
        "blocks.3.hook_mlp_out",
        "blocks.3.attn.hook_z",
        "blocks.3.hook_resid_mid",
        "blocks.0.hook_resid_pre",
        "hook_embed",
        "model.layers.3.mlp",
        "blocks.3.ln2.hook_normalized",
        "",
    ],
)
def test_other_places_are_refused(name):
    with pytest.raises(pp.PersonaProbeError, match=r"not a block's output.*layer="):
        layer_of_hook(name)
