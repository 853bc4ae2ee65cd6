"""Single options that several commands have."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

# Is given or is not: there is no --no-... of it.
Flag = Annotated[bool, Parameter(negative=())]
BatchSize = Annotated[int, Parameter(alias="-b", validator=Number(gte=1))]
