"""Errors about commands, arguments and options that the command line does not understand."""

import difflib
from collections.abc import Iterable

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError

from carmask.errors import CarmaskError


class UnknownOption(CarmaskError):
    """An argument looks like an option, and the command has none of that name."""


def refuse_unknown_command(command: str, commands: Iterable[str]) -> None:
    """Raise a CarmaskError for a command that does not exist.

    cyclopts would import all commands to list them in its message, and some need packages that are not installed.
    """
    if command not in commands:
        hint = _did_you_mean(command, commands)
        raise CarmaskError(f"'{command}': there is no such command{hint}; see `carmask --help`")


def explain_usage(error: CycloptsError | UnknownOption, app: App, command: str) -> str:
    """Say what is wrong with the arguments of `command`."""
    see = f"see `carmask {command} --help`"
    if isinstance(error, UnknownOption):
        options = [name for argument in app[command].assemble_argument_collection() for name in argument.names]
        return f"{error}: there is no such option{_did_you_mean(str(error), options)}; for a file write ./{error}"
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or ())}: this argument is one too many; {see}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.index is not None:
        return f"{error.argument.name.removeprefix('--').upper()} is missing; {see}"
    return str(error)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
