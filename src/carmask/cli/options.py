"""Options and arguments that several commands have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from carmask.pipeline.kinds import STREAM
from carmask.pipeline.urls import URL, parse_path


def _refuse_option(_: object, path: Path | URL) -> None:
    if str(path).startswith("-") and path != STREAM:
        raise ValueError(f"there is no option {path}; for a file of that name write ./{path}")


def _parse(_: object, tokens: Sequence[Token]) -> Path | URL:
    return parse_path(tokens[0].value)


# A switch without a --no-... form.
Flag = Annotated[bool, Parameter(negative=())]
BatchSize = Annotated[int, Parameter(alias="-b", validator=Number(gte=1))]
# A path, or `-`.
PathOrStream = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]
# A path, a URL, or `-`.
Source = Annotated[
    Path | URL,
    Parameter(allow_leading_hyphen=True, validator=_refuse_option, converter=_parse, n_tokens=1, accepts_keys=False),
]
