"""Published directions, one file for each format."""
