"""Activations on disk: written shard by shard, resumed after a kill, read without torch."""
