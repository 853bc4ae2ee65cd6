"""Install the lowest versions that pyproject.toml allows, and let them predict and serve.

    python benchmarks/lowest_versions.py PHOTO [--environment FOLDER]

In an environment of its own, from the package index that pip uses: the core and `serve`, each package at its lower
bound. `carmask predict` writes a mask, and `carmask serve` has to answer with the same bytes. Writes
docs/results/lowest_versions.json; ends with status 1 where something does not work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import venv
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

from record import record

ROOT = Path(__file__).parent.parent


def lowest() -> list[str]:
    """Each direct requirement of the core and of `serve`, at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["serve"]])
    return [
        f"{requirement.name}=={min(bound.version for bound in requirement.specifier if bound.operator == '>=')}.*"
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    ]


def installed(python: Path) -> dict[str, str]:
    """Name and version of each package in an environment."""
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=json"])
    return {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed)}


def serve(carmask: list[str], photo: Path) -> bytes:
    """What the service answers."""
    command = [*carmask, "serve", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next((line.split()[0] for line in process.stdout if line.startswith("http://")), None)
            if address is None:
                sys.exit("the service did not start")
            headers = {"Content-Type": "image/jpeg"}
            request = urllib.request.Request(f"{address}/v1/segment", photo.read_bytes(), headers)  # noqa: S310
            with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
                body: bytes = response.read()
                return body
        finally:
            process.terminate()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--environment", type=Path, help="keep the environment there, or use the one that is there")
    given = parser.parse_args()
    os.environ.pop("PIP_CONSTRAINT", None)
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    with tempfile.TemporaryDirectory() as folder:
        environment = given.environment or Path(folder) / "environment"
        python = (environment / "bin" / "python").absolute()
        if not python.exists():
            venv.create(environment, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        subprocess.run([*pip, *lowest()], check=True)
        carmask = [str(python), "-m", "carmask"]
        mask = Path(folder) / "mask.png"
        subprocess.run([*carmask, "predict", given.photo, mask], check=True, env={**os.environ})
        is_same = serve(carmask, given.photo) == mask.read_bytes()
        packages = installed(python)
    names = [requirement.partition("==")[0] for requirement in lowest()]
    figures = {
        "versions": {name: packages[name.lower()] for name in names},
        "newest": {name: version(name) for name in names},
        "serves_what_it_predicts": is_same,
    }
    print(json.dumps(figures, indent=1))
    record("lowest_versions", figures)
    sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
