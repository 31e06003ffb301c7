"""What a layer number means, stated in every saved artefact."""

LAYER_CONVENTION = (
    "layer l is the output of block l, counted from 0 (TransformerLens blocks.{l}.hook_out; Hugging Face "
    "hidden_states[l+1], except the last, which Hugging Face returns after the final norm)"
)
