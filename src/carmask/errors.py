"""`CarmaskError`, the base of all errors meant for users, and validation errors in plain words.

Everything wrong with the user's input, files or settings is raised as a `CarmaskError` whose message says what is
wrong, where, and what to do. The command line prints the message and exits with status 1; any other exception is a
bug and keeps its traceback.
"""

import difflib
import reprlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_MAX_ERRORS, _MAX_NAMES = 5, 3
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class CarmaskError(Exception):
    """Base class of errors that the user can fix. `str(error)` is a complete message."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def first_few(names: Collection[str]) -> str:
    """Return the first three names in their sorted order, for a message, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(sorted(names)[:_MAX_NAMES]) + more


def explain(error: "ValidationError", settings: "type[BaseModel] | None" = None, *, options_only: bool = False) -> str:
    """Describe the first five validation errors on one line.

    settings: the model that was validated; for an unknown name the closest of its fields is suggested. options_only:
    its fields can be given only as options of a command, and are named like these.
    """
    known = sorted(_setting_names(settings)) if settings else []
    errors = error.errors()
    described = [
        _describe(_name(one["loc"], options_only), one["type"], one["msg"], one.get("input"), known)
        for one in errors[:_MAX_ERRORS]
    ]
    more = [f"and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
    return "; ".join(described + more)


def _name(place: tuple[int | str, ...], options_only: bool) -> str:
    name = ".".join(map(str, place))
    return f"--{name.replace('_', '-')}" if name and options_only else name


def _describe(name: str, kind: str, message: str, value: object, known: list[str]) -> str:
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"there is no setting '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if kind == "missing":
        return f"'{name}' is not given"
    message = message.removeprefix("Value error, ")
    return f"{name} = {_SHORT.repr(value)}: {message[0].lower()}{message[1:]}" if name else message


def _setting_names(model: "type[BaseModel]", prefix: str = "") -> Iterator[str]:
    from pydantic import BaseModel  # 40 ms, too much for `carmask --help`

    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _setting_names(field.annotation, f"{prefix}{name}.")
