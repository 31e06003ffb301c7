"""Ways to get a direction that need a model, or a judge, beside a finder: one file a recipe."""
