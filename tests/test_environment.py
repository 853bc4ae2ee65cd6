import os
import shutil
import subprocess
import sys
from pathlib import Path

import carmask.environment


def commit_said_in(checkout: Path) -> str:
    code = "from carmask.environment import environment; print(environment()['commit'])"
    variables = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def git(checkout: Path, *command: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *who, *command], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_marked_where_the_code_has_been_changed_and_not_where_documents_have(tmp_path: Path) -> None:
    module, document = tmp_path / "src" / "carmask" / "environment.py", tmp_path / "docs" / "results.json"
    for file in (module, document):
        file.parent.mkdir(parents=True)
        file.write_text("")
    shutil.copy(carmask.environment.__file__, module)
    (module.parent / "__init__.py").write_text("__version__ = '0'")
    assert commit_said_in(tmp_path) == "None"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit_said_in(tmp_path) == commit
    document.write_text("figures")
    assert commit_said_in(tmp_path) == commit
    module.write_text(module.read_text() + "\n# changed")
    assert commit_said_in(tmp_path) == f"{commit}-dirty"
