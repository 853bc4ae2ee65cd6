"""Call `forked_runs.py`, which trains in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from carmask.training.settings import TrainSettings

SCRIPT = Path(__file__).with_name("forked_runs.py")


def forked(settings: TrainSettings, folder: Path, **order: Any) -> dict[str, Any]:
    """Its answer; what each process said is in `folder`."""
    whole = {"settings": settings.model_dump(mode="json"), "said": str(folder / "said"), "seed": 0, **order}
    (folder / "order.json").write_text(json.dumps(whole))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "order.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
