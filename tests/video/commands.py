"""The commands, run in the process of the tests."""

from pathlib import Path

import pytest

from carmask.cli import main


class Command:
    """Runs a command with one network, and keeps what it printed."""

    def __init__(self, name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.name = name
        self.model = model
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        """Give the exit status."""
        with pytest.raises(SystemExit) as exit_:
            main([self.name, *map(str, arguments), "-m", str(self.model)])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    def assert_refused(self, *arguments: object, because: tuple[str, ...]) -> None:
        assert self(*arguments) == 1
        assert self.err.startswith("error: ")
        for words in because:
            assert words in self.err
