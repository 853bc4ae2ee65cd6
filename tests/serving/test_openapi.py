"""The service behaves as its OpenAPI description says: schemathesis sends what it allows and what it forbids."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from service_process import Service

EXAMPLES = 10


@pytest.mark.skipif(
    find_spec("schemathesis") is None, reason="schemathesis is not installed (pip install schemathesis)"
)
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.address}/openapi.json", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 selected / 5 total" in done.stdout
    assert service.counted("carmask_requests_total", address="/v1/segment", status="200") > 0


def test_the_description_is_complete(service: Service) -> None:
    description = service.get("/openapi.json").json
    assert set(description["paths"]) == {"/healthz", "/readyz", "/metrics", "/v1/model", "/v1/segment"}
    for methods in description["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            for status, answer in operation["responses"].items():
                assert answer["description"]
                if int(status) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    segment = description["paths"]["/v1/segment"]["post"]
    assert set(segment["responses"]) == {"200", "400", "406", "408", "413", "415", "422", "431", "500", "503"}
    reference = segment["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"]
    fields = description["components"]["schemas"][reference.rpartition("/")[2]]
    assert fields["required"] == ["file"]
    assert fields["additionalProperties"] is False


def test_the_committed_description_is_the_services(service: Service) -> None:
    """Where it differs on purpose: `python -m carmask.serving.openapi docs/openapi.json`."""
    committed = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert service.get("/openapi.json").json == committed
