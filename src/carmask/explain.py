"""A wrong setting, in words."""

import difflib
import reprlib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

_SHOWN = 5
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def explain(error: ValidationError, settings: type[BaseModel] | None = None) -> str:
    """Say for the first few faults which setting is wrong, and for a misspelled one which of `settings` was meant."""
    known = sorted(_setting_names(settings)) if settings else []
    faults = error.errors()
    told = [
        _explain_fault(".".join(map(str, fault["loc"])), fault["type"], fault["msg"], fault.get("input"), known)
        for fault in faults[:_SHOWN]
    ]
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return "; ".join(told + more)


def _explain_fault(name: str, kind: str, message: str, value: object, known: list[str]) -> str:
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"there is no setting '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if kind == "missing":
        return f"'{name}' is not given"
    message = message.removeprefix("Value error, ")
    return f"{name} = {_SHORT.repr(value)}: {message[0].lower()}{message[1:]}" if name else message


def _setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _setting_names(field.annotation, f"{prefix}{name}.")
