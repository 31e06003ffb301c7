"""Linear classifiers at every layer at once: what finders and probes share. Knows arrays only, no dialogues."""
