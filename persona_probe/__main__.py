"""``python -m persona_probe``."""

from persona_probe.cli import main

main()
