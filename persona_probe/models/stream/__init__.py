"""The residual stream: where the blocks are, the hooks that read and write it, and the tokens that they act on."""
