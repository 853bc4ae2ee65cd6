import os
import subprocess
import sys

import pytest

# Prints while a bar runs, as `carmask predict --json` does.
PRINTS_LINES = """
from carmask.progress import progress_bar

with progress_bar("counting") as advance:
    for done in range(1, 21):
        print(done, flush=True)
        advance(done, 20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_on_the_terminal_leaves_lines_for_a_pipe_alone() -> None:
    terminal, error_stream = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS_LINES],
            stdout=subprocess.PIPE,
            stderr=error_stream,
            env=environment,
            check=True,
        )
        assert b"counting" in os.read(terminal, 100_000)
    finally:
        os.close(error_stream)
        os.close(terminal)
    assert done.stdout.split() == [str(number).encode() for number in range(1, 21)]
