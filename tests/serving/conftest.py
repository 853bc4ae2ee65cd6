"""Services that the tests share, and a photo for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import Service, running

from bright_onnx import write_bright_onnx
from bright_photos import save, vehicle


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes for a vehicle what is bright."""
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo of something bright."""
    return save(tmp_path_factory.mktemp("photo") / "car.png")


@pytest.fixture(scope="session")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo whose cut-out takes a while: 12 megapixels in some 100 KB."""
    mask_HW = vehicle((3000, 4000))
    return save(tmp_path_factory.mktemp("large") / "large.png", mask_HW)


@pytest.fixture(scope="session")
def service(bright: Path) -> Iterator[Service]:
    """A service with the limits that everybody has."""
    with running("-m", bright, "--engine", "onnxruntime", "--device", "cpu") as started:
        yield started
