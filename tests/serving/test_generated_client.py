"""A client that openapi-python-client generates from the committed description segments a photo."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from service_process import Service

DOCS = Path(__file__).parents[2] / "docs"
GENERATE = "from openapi_python_client.cli import app; app()"
PROGRAM = """
import sys
from carmask_client.api.photos import get_model_v1_model_get, segment_v1_segment_post
from carmask_client.client import Client
from carmask_client.models.segment_form import SegmentForm
from carmask_client.models.segment_form_kind import SegmentFormKind
from carmask_client.types import File

address, photo, *results = sys.argv[1:]
with Client(address, raise_on_unexpected_status=True) as client, open(photo, "rb") as data:
    assert get_model_v1_model_get.sync(client=client).limits.max_bytes == 32_000_000
    forms = SegmentForm([File(data, "car.png")]), SegmentForm([File(data, "car.png")], kind=SegmentFormKind.CUTOUT)
    for form, result in zip(forms, results, strict=True):
        data.seek(0)
        found = segment_v1_segment_post.sync_detailed(client=client, body=form)
        assert found.status_code == 200, found.content
        open(result, "wb").write(found.parsed.payload.read())
    data.seek(0)
    raw = segment_v1_segment_post.sync_detailed(client=client, body=File(data))
    assert raw.status_code == 200
"""


@pytest.mark.skipif(find_spec("openapi_python_client") is None, reason="openapi-python-client is not installed")
def test_a_generated_client_segments_a_photo(service: Service, photo: Path, tmp_path: Path) -> None:
    options = ["--path", DOCS / "openapi.json", "--config", DOCS / "openapi-python-client.yaml", "--meta", "none"]
    subprocess.run(
        [sys.executable, "-c", GENERATE, "generate", *options, "--output-path", "carmask_client"],
        cwd=tmp_path,
        check=True,
    )
    subprocess.run(
        [sys.executable, "-c", PROGRAM, service.address, photo, "mask.png", "cutout.png"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "mask.png").read_bytes() == service.segment(photo).body
    assert (tmp_path / "cutout.png").read_bytes() == service.segment(photo, kind="cutout").body
