"""Before/after comparison along directions, with nulls and specificity."""
