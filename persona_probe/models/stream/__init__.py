"""The residual stream: where the blocks are, the hooks that read and write it, and which tokens they act on."""
