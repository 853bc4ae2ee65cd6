"""Both engines on the packaged network, against plain onnxruntime."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import openvino as ov
import pytest
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.models.card import ModelFileError, read_card
from carmask.runtime.engine import Engine, EngineError, EngineMissing
from carmask.runtime.load import open_onnx
from carmask.runtime.locate import packaged_models
from carmask.runtime.options import EngineName, RunOptions

FAST = packaged_models()["fast"]
# Multiples of the stride, and odd ones; more than are kept compiled.
SIZES_HW = [(64, 96), (128, 64), (33, 47), (100, 150), (64, 64), (1, 1)]


def pictures(count: int, size_HW: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, size_HW[::-1], interpolation=cv2.INTER_CUBIC) for one in coarse])


@pytest.fixture(scope="module")
def reference() -> ort.InferenceSession:
    return ort.InferenceSession(str(FAST), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    return open_onnx(FAST, RunOptions(request.param))


def test_mixed_sizes_and_batches_in_random_order_are_each_right(reference: ort.InferenceSession) -> None:
    wanted_of = {}
    for seed, size_HW in enumerate(SIZES_HW):
        images_NHWC = pictures(5, size_HW, seed)
        wanted_of[size_HW] = images_NHWC, reference.run(None, {"image": images_NHWC})[0]
    rng = np.random.default_rng(0)
    engines = [(open_onnx(FAST, RunOptions("openvino", precision="float32")), 1e-4)]
    engines += [(open_onnx(FAST, RunOptions("openvino")), 0.05), (open_onnx(FAST, RunOptions("onnxruntime")), 1e-6)]
    for engine, tolerance in engines:
        for _ in range(10):
            size_HW = SIZES_HW[rng.integers(len(SIZES_HW))]
            chosen = rng.permutation(5)[: rng.integers(1, 6)]
            images_NHWC, wanted_NHW = wanted_of[size_HW]
            found_NHW = engine.run(images_NHWC[chosen])
            assert found_NHW.shape == (len(chosen), *size_HW)
            assert found_NHW.dtype == np.float32
            np.testing.assert_allclose(found_NHW, wanted_NHW[chosen], atol=tolerance)
    assert min(np.ptp(wanted_NHW[0]) for _, wanted_NHW in wanted_of.values() if wanted_NHW[0].size > 1) > 0.01


def test_results_do_not_depend_on_the_rest_of_the_batch(engine: Engine) -> None:
    images_NHWC = pictures(7, (128, 192), 1)
    alone = engine.run(images_NHWC[np.repeat(np.arange(7), engine.steady_batch or 1)])[:: engine.steady_batch or 1]
    rng = np.random.default_rng(1)
    for count in (2, 3, 4, 7):
        order = rng.permutation(7)[:count]
        np.testing.assert_array_equal(engine.run(images_NHWC[order]), alone[order])


def test_many_threads_at_once_get_the_bits_of_one(engine: Engine) -> None:
    batches = [pictures(1 + seed % 3, SIZES_HW[seed % 4], seed) for seed in range(12)]
    wanted = [engine.run(images_NHWC) for images_NHWC in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(engine.run, batches * 8))
    for found_NHW, wanted_NHW in zip(found, wanted * 8, strict=True):
        np.testing.assert_array_equal(found_NHW, wanted_NHW)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 64, 96, 3), np.float32),
        np.zeros((1, 64, 96, 1), np.uint8),
        np.zeros((64, 96, 3), np.uint8),
        np.zeros((0, 64, 96, 3), np.uint8),
        np.zeros((1, 0, 96, 3), np.uint8),
    ],
    ids=["float", "gray", "one", "none", "flat"],
)
def test_what_is_no_batch_of_photos_is_refused(engine: Engine, images: NDArray[np.uint8]) -> None:
    with pytest.raises(EngineError):
        engine.run(images)


def test_the_array_given_may_be_a_view_and_is_not_kept(engine: Engine) -> None:
    images_NHWC = pictures(2, (64, 96), 3)
    wanted = engine.run(np.ascontiguousarray(images_NHWC[:, :, ::-1]))
    found = engine.run(images_NHWC[:, :, ::-1])
    np.testing.assert_array_equal(found, wanted)
    kept = found.copy()
    engine.run(pictures(2, (64, 96), 4))
    np.testing.assert_array_equal(found, kept)


def test_the_precision_told_is_the_one_that_runs() -> None:
    native = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    chosen = open_onnx(FAST, RunOptions("openvino"))
    assert open_onnx(FAST, RunOptions("openvino", precision="float32")).precision == "float32"
    images_NHWC = pictures(1, (128, 192), 5)
    single = open_onnx(FAST, RunOptions("openvino", precision="float32")).run(images_NHWC)
    difference = np.abs(chosen.run(images_NHWC) - single).max()
    # bf16 has 8 bits of mantissa: its results are close to float32's, but not the same.
    assert chosen.precision == ("bf16" if difference > 1e-5 else "float32")
    if chosen.precision == "bf16":
        assert native
        assert open_onnx(FAST, RunOptions("openvino", precision="bf16")).precision == "bf16"
    else:
        with pytest.raises(EngineMissing, match="bf16"):
            open_onnx(FAST, RunOptions("openvino", precision="bf16"))


@pytest.mark.parametrize("name", list(packaged_models()))
def test_the_packaged_networks_run_as_they_are_stored(name: str) -> None:
    path = packaged_models()[name]
    card = read_card(path)
    for engine in ("openvino", "onnxruntime"):
        runs_in = open_onnx(path, RunOptions(engine)).precision
        assert (runs_in == "int8") == (card.precision == "int8")
        if card.precision == "int8":
            with pytest.raises(EngineMissing, match="int8"):
                open_onnx(path, RunOptions(engine, precision="float32"))


def test_threads_are_those_asked_for() -> None:
    for name in ("openvino", "onnxruntime"):
        assert open_onnx(FAST, RunOptions(name, threads=1)).threads == 1
        assert (open_onnx(FAST, RunOptions(name)).threads or 0) >= 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say where threads may run")
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_threads_are_bound_to_no_processor(name: EngineName) -> None:
    """Several processes would be bound to the same one, and share it while others rest."""
    code = f"""
import contextlib, os, threading
from pathlib import Path
import numpy as np
from carmask.runtime.load import open_onnx
from carmask.runtime.options import RunOptions
everywhere = os.sched_getaffinity(0)
engine = open_onnx(Path({str(FAST)!r}), RunOptions({name!r}, threads=1))
images = np.zeros((2, 512, 768, 3), np.uint8)
compiled = threading.Event()
working = threading.Thread(target=lambda: (engine.run(images), compiled.set(), [engine.run(images) for _ in range(5)]))
working.start()
compiled.wait()
found = set()
while working.is_alive():
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            found.add(tuple(os.sched_getaffinity(int(thread))))
print(found == {{tuple(everywhere)}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(device="cuda"),
        RunOptions("tensorrt"),
        RunOptions("tensorrt", "cpu"),
        RunOptions("tensorrt", precision="float32"),
        RunOptions("openvino", "cuda"),
        RunOptions("onnxruntime", precision="bf16"),
        RunOptions("torch"),
        RunOptions(device="mps"),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_here_are_refused(options: RunOptions) -> None:
    if options.device == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineMissing):
        open_onnx(FAST, options)


@pytest.mark.parametrize(
    "values",
    [
        {"engine": "tensorflow"},
        {"device": "gpu"},
        {"device": "cuda:one"},
        {"device": "cpu:1"},
        {"precision": "f16"},
        {"threads": 0},
    ],
    ids=str,
)
def test_options_that_no_engine_knows_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CarmaskError):
        RunOptions(**values)


def test_bytes_are_as_good_as_a_file() -> None:
    images_NHWC = pictures(1, (64, 96), 6)
    for name in ("openvino", "onnxruntime"):
        from_bytes = open_onnx(FAST.read_bytes(), RunOptions(name)).run(images_NHWC)
        np.testing.assert_array_equal(from_bytes, open_onnx(FAST, RunOptions(name)).run(images_NHWC))


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_file_with_a_sound_card_and_a_damaged_network_is_named(tmp_path: Path, name: str) -> None:
    # A node's operator (field 4 of `NodeProto`) that no engine knows.
    data = FAST.read_bytes().replace(b"\x22\x04Conv", b"\x22\x04Vonc")
    path = tmp_path / "hurt.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"hurt\.onnx"):
        open_onnx(path, RunOptions(name))


def test_no_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("openvino", "onnxruntime"):
        open_onnx(FAST, RunOptions(name)).run(pictures(2, (64, 96), 7))
    assert not list(tmp_path.rglob("*"))
