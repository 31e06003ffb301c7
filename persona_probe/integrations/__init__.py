"""Other people's tools, each optional and in one file."""
