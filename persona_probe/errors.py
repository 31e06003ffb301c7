"""Errors that users can cause, and can repair themselves."""


class PersonaProbeError(ValueError):
    """Bad input: the message says what was wrong, where, which value was seen, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class NothingMeasuredError(PersonaProbeError):
    """Answers were sampled and judged, but no number can be computed from them."""


class PersonaProbeWarning(UserWarning):
    """Something that may make a number mean less than it seems to; the work continues."""


_LINES = 12
"""Of a library's error, at most: torch names every tensor of a wrong shape on a line of its own."""


def library_message(error: BaseException) -> str:
    r"""What another library's ``error`` says, on one line: its first line, or all of them if the first ends in a colon.

    >>> library_message(RuntimeError("Error(s) in loading:\n\tsize mismatch for head: (8, 4), here (9, 4)"))
    'Error(s) in loading: size mismatch for head: (8, 4), here (9, 4)'
    >>> library_message(OSError("no such file\nSee the manual."))
    'no such file'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError):
        return " ".join([type(error).__name__, *lines])
    if not lines[0].endswith(":"):
        return lines[0]
    rest = len(lines) - _LINES
    return " ".join(lines[:_LINES]) + (f" ... (and {rest} more lines)" if rest > 0 else "")
