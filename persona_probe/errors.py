"""Errors that users can cause, and can repair themselves."""


class PersonaProbeError(ValueError):
    """Bad input: the message says what was wrong, where, which value was seen, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class NothingMeasuredError(PersonaProbeError):
    """Answers were sampled and judged, but no number can be computed from them."""


class PersonaProbeWarning(UserWarning):
    """Something that may make a number mean less than it seems to; the work continues."""
