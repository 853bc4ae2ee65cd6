"""The one family of errors that a user is meant to read.

Everything that is wrong with the user's input, files or settings is raised as a `CarmaskError` whose text says what
was wrong, where, and what to do. The command line prints that text and exits with status 1; any other exception is
a defect of the program and keeps its traceback.
"""


class CarmaskError(Exception):
    """Something the user can put right. `str(error)` is a complete message for a person."""


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its kind where it says nothing, for a message of one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
