"""Ways to get a direction that need more than a finder, namely a model or a judge: one file per recipe."""
