"""Everything that needs a GPU, in one command and in bounded time: ``make gpu``."""
