"""Judges, judged tables and EM-rate definitions."""
