"""Call `forked_runs.py` and `forked_kills.py`, which train in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from carmask.training.config import TrainSettings


def forked(settings: TrainSettings, folder: Path, *, script: str = "forked_runs.py", **order: Any) -> dict[str, Any]:
    """Its answer; what each process said is in `folder`."""
    whole = {"settings": settings.model_dump(mode="json"), "said": str(folder / "said"), **order}
    (folder / "order.json").write_text(json.dumps(whole))
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder / "order.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
