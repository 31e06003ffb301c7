"""One file a finder: from two poles to one vector a layer."""
