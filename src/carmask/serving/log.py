"""The log on standard error, as lines of text or of JSON, and the trace that a request belongs to."""

import json
import logging
import re
import secrets
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
LOG = logging.getLogger("carmask.serving")

# W3C Trace Context: version, trace, parent, flags. Versions after 00 may have more; ff and zeros are invalid.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class Trace:
    """A request's place among those of other programs: the trace, the program's span that asked, and this one's."""

    trace_id: str
    parent_id: str
    span_id: str
    flags: str

    @property
    def traceparent(self) -> str:
        """The header for whatever this request causes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def take_over_trace(traceparent: str) -> Trace | None:
    """The trace of a request, by its header `traceparent`; None if that is missing or invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5]):
        return None
    return Trace(match[2], match[3], secrets.token_hex(8), match[4])


class JsonFormatter(logging.Formatter):
    """A JSON object for each record: time, level, message, the fields of a request, and the traceback of a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line of ASCII."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up_log(log_format: LogFormat) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    # uvicorn's and the parser's warnings are about single bad requests; the metrics count those.
    for name in ("carmask.serving", "uvicorn.error", "python_multipart"):
        log = logging.getLogger(name)
        log.setLevel(logging.INFO if log is LOG else logging.ERROR)
        log.addHandler(handler)
        log.propagate = False
