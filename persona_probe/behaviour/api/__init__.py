"""Asking OpenAI-compatible servers: requests, replies, retries, and the file that holds every reply which arrived."""
