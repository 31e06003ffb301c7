"""One file a figure: a pure function of result tables that returns a ``plotly.graph_objects.Figure``."""
