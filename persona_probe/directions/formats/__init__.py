"""Published directions, one format per file."""
