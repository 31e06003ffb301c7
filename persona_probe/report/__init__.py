"""Figures, the HTML report and the terminal summary of a finished study; none of it needs torch."""
