"""`python -m carmask.serving.openapi docs/openapi.json` writes the OpenAPI description of the service into a file."""

import json
import sys
from pathlib import Path

from carmask.serving.app import describe_api


def as_text() -> str:
    """The text of the file."""
    return json.dumps(describe_api(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_text(), encoding="utf-8")
