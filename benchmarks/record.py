"""How every benchmark writes its figures down: as JSON under docs/results, with machine, date and commit."""

import json
from pathlib import Path
from typing import Any

from carmask.environment import environment

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CARVANA = Path(__file__).parent.parent.parent / "shared" / "carvana"


def record(name: str, figures: dict[str, Any]) -> Path:
    """Write figures and what they depend on to docs/results/<name>.json."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, **environment(), "figures": figures}, indent=1) + "\n")
    print(f"written to {path}")
    return path
