"""One segmenter in forked processes, pickled and in threads, as programs around it use it."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bright_network import bright_is_vehicle
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter

# In a process of its own, because pytest has threads. A child that waits for ever is ended by its alarm.
FORK = """
import multiprocessing, os, signal, sys
import numpy as np
from carmask import CarmaskError, Segmenter
from carmask.runtime.options import RunOptions

signal.alarm(60)
model, engine = sys.argv[1:]
load = lambda: Segmenter.load(model, RunOptions(engine, device="cpu"))
segment = load()
images = [np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8) for seed in range(3)]
wanted = [segment(image).probability for image in images]

def check(found):
    assert all(map(np.array_equal, found, wanted))

with multiprocessing.get_context("fork").Pool(2) as pool:
    try:
        check([one.probability for one in pool.map(segment, images)])
        print("same")
    except CarmaskError as error:
        print("refused", "spawn" in str(error))

if os.fork() == 0:
    signal.alarm(60)
    try:
        check(one.probability for one in map(segment, images))
        segment = load()
        check(one.probability for one in map(segment, images))
    except CarmaskError:
        pass
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_forked_process_computes_the_same_or_says_why_it_cannot(engine: str, tmp_path: Path) -> None:
    model = str(bright_is_vehicle(tmp_path)) if engine == "torch" else "fast"
    done = subprocess.run(
        [sys.executable, "-c", FORK, model, engine], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:2] == ["refused True" if engine == "torch" else "same", "7"]


@pytest.mark.parametrize("network", ["packaged", "weights"])
def test_a_pickled_segmenter_computes_the_same_in_another_folder(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bright_is_vehicle(tmp_path / "weights")
    models = [Path("weights")] if network == "weights" else ["fast", "small"]
    segment = Segmenter.load(models, RunOptions(device="cpu", precision="float32"), tta="flip", threshold=0.3)
    content = pickle.dumps(segment)
    image_HWC = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    wanted = segment(image_HWC)
    monkeypatch.chdir("/")
    again = pickle.loads(content)  # noqa: S301 - made above
    np.testing.assert_array_equal(again(image_HWC).probability, wanted.probability)
    assert again.describe() == segment.describe()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(wanted)).mask, wanted.mask)  # noqa: S301


@pytest.mark.parametrize("network", ["packaged", "weights"])
def test_threads_that_share_a_segmenter_get_the_bits_of_one(network: str, tmp_path: Path) -> None:
    segment = Segmenter.load(None if network == "packaged" else bright_is_vehicle(tmp_path), RunOptions(device="cpu"))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size_HW, 3), np.uint8) for size_HW in ((40, 60), (90, 50), (200, 300))]
    wanted = [segment(image_HWC).probability for image_HWC in images]
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(segment, images * 5))
    for result, wanted_HW in zip(found, wanted * 5, strict=True):
        np.testing.assert_array_equal(result.probability, wanted_HW)
