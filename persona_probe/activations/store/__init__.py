"""Activations on disk: written shard by shard, resumed after an interruption, read without torch."""
