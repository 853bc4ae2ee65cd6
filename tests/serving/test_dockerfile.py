"""All of the container that can be shown without a container engine."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from service_process import Service, running

import carmask
from carmask.cli import app

ROOT = Path(__file__).parents[2]
# What the image may have, and what of it the base has: Debian without extras, and Python.
MOST_MB, BASE_MB = 800, 150


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its arguments, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def said(name: str) -> list[str]:
    """The arguments of one instruction, each time that it is there."""
    return [rest for instruction, rest in instructions() if instruction == name]


def command(name: str) -> list[str]:
    """The last instruction of a name as a list of words."""
    words: list[str] = json.loads(said(name)[-1].rpartition("CMD ")[2])
    return words


def closure() -> dict[str, int]:
    """Every package that the image has, with what its files take in bytes: as installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    sizes: dict[str, int] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in sizes or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found = distribution(name)
        places = [Path(str(path.locate())) for path in found.files or ()]
        sizes[name] = sum(place.stat().st_size for place in places if place.is_file())
        waiting += found.requires or []
    return sizes


def test_only_known_instructions_in_an_order_that_works() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert all(image.startswith("python:3.11-slim") for image in said("FROM"))
    assert sys.version_info >= (3, 11)


def test_all_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored, "nothing comes along unasked: no photos, no runs, no .git"
    for arguments in said("COPY"):
        if not arguments.startswith("--from="):
            for source in map(_plain, arguments.split()[:-1]):
                assert (ROOT / source).exists(), source
                assert source in kept, source
    for name in kept:
        assert any(name in map(_plain, arguments.split()) for arguments in said("COPY"))


def _plain(source: str) -> str:
    return source.removeprefix("./")


def test_what_is_copied_is_enough_to_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = {source for arguments in said("COPY") for source in arguments.split()[:-1]}
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src"} <= copied
    installing = [command for run in said("RUN") for command in run.split("&&") if "pip install" in command]
    assert installing
    for one in installing:
        assert "--require-hashes" in one or {"--no-deps", "--no-index"} <= set(one.split()), one


def test_it_is_not_root() -> None:
    names = [name for name, _ in instructions()]
    user = said("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number that is not 0"
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("FROM", "COPY", "RUN"))


def test_it_holds_no_pytorch_and_less_than_800_mb() -> None:
    sizes = closure()
    sizes["carmask"] = sum(path.stat().st_size for path in Path(carmask.__file__).parent.rglob("*") if path.is_file())
    listed = "\n".join(
        f"{size / 1e6:8.1f} MB  {name}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])
    )
    assert not {"torch", "ray", "av", "scipy", "matplotlib", "kornia"} & sizes.keys()
    assert {"openvino", "onnxruntime", "fastapi", "uvicorn"} <= sizes.keys()
    assert sum(sizes.values()) / 1e6 + BASE_MB < MOST_MB, listed


def test_the_locked_packages_are_those_that_are_required() -> None:
    """And their versions are those that the tests ran with; each has the hashes of its files."""
    constraints = {line.strip().lower().replace("_", "-") for line in (ROOT / "constraints.txt").open() if "==" in line}
    lock = (ROOT / "deploy" / "requirements-serve.lock").read_text()
    locked = re.findall(
        r"^([\w.-]+)==([^ ;]+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}[ \\]*\n)+)", lock, re.MULTILINE
    )
    assert len(locked) == len(re.findall(r"^[\w.-]+==", lock, re.MULTILINE))
    assert {name for name, _, _ in locked} == closure().keys()
    assert {f"{name}=={version}" for name, version, _ in locked} <= constraints
    assert not re.search("https?:|file:/", lock)


def test_every_package_is_pinned() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").open() if "==" in line
    }
    assert not closure().keys() - pinned


def test_the_entry_point_is_a_command_that_is_understood() -> None:
    words = command("ENTRYPOINT")
    assert words[:2] == ["carmask", "serve"]
    called, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert called.__name__ == "serve"
    assert bound.arguments["host"] == "0.0.0.0"  # noqa: S104 - inside its container
    assert str(bound.arguments["port"]) == said("EXPOSE")[-1]


def test_the_health_check_tells_a_service_that_is_there(service: Service) -> None:
    words = [sys.executable, *command("HEALTHCHECK")[1:]]
    assert command("HEALTHCHECK")[0] == "python"
    asked = [word.replace(":8000/", f":{service.port}/") for word in words]
    assert asked != words
    assert subprocess.run(asked, check=False).returncode == 0
    nobody = [word.replace(":8000/", ":1/") for word in words]
    assert subprocess.run(nobody, check=False, capture_output=True).returncode != 0


def test_it_runs_where_it_may_write_nowhere(photo: Path) -> None:
    """As with `--read-only`: no byte into any file, no home, no folder for what is temporary."""
    with running(may_write=False) as service:
        assert service.segment(photo, kind="cutout").status == 200
        assert service.stop() == 0
