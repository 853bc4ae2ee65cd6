"""Photos at addresses that fsspec reaches, in archives and in memory, and Parquet tables of paths and of results."""

import csv
import os
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bright_photos import Command, contents, files, mask_of, save, vehicle
from carmask.pipeline.photo_list import SourceError
from carmask.pipeline.sources import find_photos
from carmask.pipeline.urls import URL, URLError, common_folder, parse_path
from carmask.pipeline.walk import PICTURE_JOURNAL

NEEDED = ("fsspec", "pyarrow")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason="fsspec or pyarrow is not installed: pip install 'carmask[cluster]'"
)

NAMES = st.text("ab.-", min_size=1).filter(lambda name: name not in (".", ".."))


@pytest.fixture
def archive(predict: Command) -> str:  # noqa: ARG001 - the working folder is its
    """An archive of four photos, one of them without a vehicle, and other files; the same photos lie in `photos`."""
    save("photos/b.png", vehicle((50, 71)))
    save("photos/sub/a.jpg", vehicle((90, 71)), quality=95)
    save("photos/sub/empty.png", np.zeros((31, 17), dtype=bool))
    save("photos/sub/deep/a.jpg", np.rot90(vehicle()).copy(), quality=95)
    Path("photos/notes.txt").write_text("no photo\n")
    save("photos/.hidden/c.png")
    with ZipFile("photos.zip", "w") as stream:
        for path in sorted(Path("photos").rglob("*")):
            stream.write(path)
    return f"::{Path.cwd() / 'photos.zip'}"


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, unique_by=tuple))
def test_a_common_folder_and_names_make_the_addresses_again(paths: list[list[str]]) -> None:
    places = [URL("s3", "/".join(["bucket", *path])) for path in paths]
    folder, names = common_folder(places)
    assert [folder / name for name in names] == places
    # No deeper folder holds them all.
    assert len(paths) == 1 or len({name.split("/")[0] for name in names}) > 1 or any("/" not in name for name in names)


def test_what_is_an_address_and_what_a_path() -> None:
    assert parse_path("s3://bucket/a.jpg") == URL("s3", "bucket/a.jpg")
    assert parse_path("zip://a/b.jpg::s3://bucket/x.zip") == URL("zip", "a/b.jpg", "s3://bucket/x.zip")
    for text in ("s3://bucket/a.jpg", "zip://::/tmp/x.zip", "https://host/a//b.jpg?x=1"):
        assert str(parse_path(text)) == text
    assert parse_path("file:///photos/a.jpg") == Path("/photos/a.jpg")
    for path in ("photos/a.jpg", "C:/photos", "s3:/bucket", "a::b.jpg"):
        assert parse_path(path) == Path(path)


@pytest.mark.parametrize(("kind", "ending"), [("mask", ""), ("cutout", ""), ("coco", ".json")])
def test_an_archive_gives_what_its_files_give(archive: str, predict: Command, kind: str, ending: str) -> None:
    there, away = Path(f"there/results{ending}"), Path(f"away/results{ending}")
    assert predict("photos", there, "-k", kind) == 0
    assert predict(f"zip://photos{archive}", away, "-k", kind) == 0
    lists = {name: data for name, data in contents("away").items() if name.endswith("no_vehicle.txt")}
    assert [data.splitlines()[1:] for data in lists.values()] == [[f"zip://photos/sub/empty.png{archive}".encode()]]
    journal = f"results/{PICTURE_JOURNAL}.jsonl"
    assert {**contents("there"), **lists, journal: b""} == {**contents("away"), journal: b""}
    if not ending:
        assert predict(f"zip://photos{archive}", away, "-k", kind) == 0
        assert predict.done_before == (4, 4)
        # Another archive of that name has other photos, whatever its date.
        save("photos/b.png", vehicle((50, 71))[::-1, ::-1])
        with ZipFile("other.zip", "w") as stream:
            for path in sorted(Path("photos").rglob("*")):
                stream.write(path)
        os.utime("other.zip", (1.6e9, 1.6e9))
        Path("other.zip").replace("photos.zip")
        before = contents("away")
        assert predict(f"zip://photos{archive}", away, "-k", kind) == 0
        assert contents("away")["results/b.png"] != before["results/b.png"]


def test_what_is_not_there_is_a_failure_or_refused(archive: str, predict: Command) -> None:
    Path("list.txt").write_text(f"zip://photos/b.png{archive}\nzip://photos/gone.png{archive}\n")
    assert predict("list.txt", "out") == 2
    assert f"zip://photos/gone.png{archive}: " in predict.out
    assert files("out") == {"b.png", "failures.csv"}
    predict.assert_refused(f"zip://nowhere{archive}", "out", naming=("zip://nowhere",))
    predict.assert_refused(f"zip://photos/sub{archive}", "outlines", "-k", "labelme", naming=("--kind labelme",))
    predict.assert_refused("photos", "ftp://host/out", naming=("ftp://host/out",))
    for nowhere in ("s3://", "gs:///masks"):
        predict.assert_refused("photos", nowhere, naming=(nowhere,))
    predict.assert_refused("nostore://bucket", "out", naming=("nostore://bucket",))
    Path("mixed.txt").write_text(f"photos/b.png\nzip://photos/b.png{archive}\n")
    predict.assert_refused("mixed.txt", "out", naming=("mixed.txt",))
    Path("stores.txt").write_text(f"s3://bucket/a.png\nzip://photos/b.png{archive}\n")
    predict.assert_refused("stores.txt", "out", naming=("stores.txt",))


def test_lists_and_photos_in_memory() -> None:
    import fsspec

    with fsspec.open("memory://cars/list.txt", "wb") as stream:
        stream.write(b"sub/a.jpg\nmemory://cars/b.jpg\n")
    photos = find_photos(URL("memory", "cars/list.txt"), results=None)
    assert [str(photos.locate(name)) for name in photos.names] == ["memory://cars/sub/a.jpg", "memory://cars/b.jpg"]
    one = find_photos(URL("memory", "cars/list.txt").parent / "list.txt", results=None)
    assert one.names == photos.names
    with pytest.raises(SourceError, match="memory://cars"):
        find_photos(URL("memory", "cars"), results=None)
    with pytest.raises(URLError, match="memory://nowhere"):
        find_photos(URL("memory", "nowhere"), results=None)
    with pytest.raises(SourceError, match="memory://cars"):
        photos.path("b.jpg")


@pytest.mark.parametrize("slash", ["", "/"])
def test_results_below_the_photos_of_a_store_are_no_photos(slash: str) -> None:
    import fsspec

    for name in ("a.jpg", "masks/a.png", "masks2/b.png"):
        fsspec.filesystem("memory").pipe_file(f"/lot/cars/{name}", b"")
    cars = parse_path("memory://lot/cars")
    found = {
        destination: list(find_photos(cars, results=parse_path(f"memory://lot/{destination}{slash}")).names)
        for destination in ("cars/masks", "car", "")
    }
    every = ["a.jpg", "masks/a.png", "masks2/b.png"]
    assert found == {"cars/masks": ["a.jpg", "masks2/b.png"], "car": every, "": every}
    with pytest.raises(SourceError, match="memory://lot/cars"):
        find_photos(cars, results=parse_path(f"memory://lot/cars{slash}"))


def test_results_of_before_below_the_photos_of_a_store_are_no_photos(predict: Command) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("a.png", "sub/b.png"):
        system.pipe_file(f"/yard/{name}", save(name).read_bytes())
    assert predict("memory://yard", "memory://yard/sub/masks") == 0
    assert predict("memory://yard", "memory://yard/soft", "-k", "soft") == 0
    assert "memory://yard/sub/masks: " in predict.out
    assert {name for name in URL("memory", "yard/soft").files_below() if name.endswith(".png")} == {
        "a.png",
        "sub/b.png",
    }
    system.rm("/yard/a.png")
    system.rm("/yard/sub/b.png")
    with pytest.raises(SourceError, match="memory://yard/soft, memory://yard/sub/masks"):
        find_photos(URL("memory", "yard"), results=None)


@pytest.mark.usefixtures("archive")
def test_parquet_of_paths_and_of_results(predict: Command) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    Path("broken.jpg").write_bytes(b"no picture")
    paths = ["photos/b.png", "photos/sub/empty.png", None, "broken.jpg", str(Path.cwd() / "photos/sub/a.jpg")]
    parquet.write_table(pa.table({"path": paths[:3], "id": [1, 2, 3]}), "list.parquet")
    assert predict("list.parquet", "masks") == 0
    assert files("masks") == {"b.png", "sub/empty.png", "no_vehicle.txt"}

    # A folder of parts, as other programs write them.
    Path("parts.parquet").mkdir()
    for number, part in enumerate((paths[:3], paths[3:])):
        parquet.write_table(pa.table({"path": part}), f"parts.parquet/part-{number}.parquet")
    assert predict("parts.parquet", "out.parquet") == 2
    assert files(".") >= {"out.parquet", "out.parquet.failures.csv", "out.parquet.no_vehicle.txt", "out.parquet.part"}
    whole, empty, broken, photo = parquet.read_table("out.parquet").to_pylist()
    names = [Path(row["path"]).name for row in (whole, empty, broken, photo)]
    assert names == ["b.png", "empty.png", "broken.jpg", "a.jpg"]
    assert predict("photos/b.png", "photos/sub/empty.png", "some.csv") == 0
    with Path("some.csv").open(newline="") as stream:
        assert dict(csv.reader(stream)) == {"img": "rle_mask", "b.png": whole["rle"], "empty.png": empty["rle"]}
    mask_HW = mask_of("masks/b.png")
    rows, columns = mask_HW.any(axis=1).nonzero()[0], mask_HW.any(axis=0).nonzero()[0]
    box_px = {"top": rows[0], "left": columns[0], "bottom": rows[-1] + 1, "right": columns[-1] + 1}
    assert whole["box_px"] == box_px
    assert whole["coverage"] == pytest.approx(mask_HW.mean(), abs=1e-6)
    assert (whole["height"], whole["width"]) == mask_HW.shape
    assert (empty["box_px"], empty["coverage"], empty["rle"]) == (None, 0, "")
    assert [row["error"] is None for row in (whole, empty, broken, photo)] == [True, True, False, True]
    assert (broken["rle"], broken["height"], broken["seconds"]) == (None, None, None)
    assert "broken.jpg" in broken["error"]

    # What failed is tried again, and the rest is kept with the seconds that it took then.
    save("broken.jpg", quality=95)
    assert predict("parts.parquet", "out.parquet") == 0
    assert predict.done_before == (3, 4)
    mended = parquet.read_table("out.parquet").to_pylist()
    assert mended[:2] == [whole, empty]
    assert mended[2]["error"] is None
    assert not Path("out.parquet.part").exists()
    # A table of results is a table of paths.
    assert predict("out.parquet", "again") == 0
    assert len(files("again")) == 5


def test_parquet_that_is_none(predict: Command) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    Path("text.parquet").write_text("no table")
    predict.assert_refused("text.parquet", "out", naming=("text.parquet",))
    parquet.write_table(pa.table({"file": ["a.jpg"], "id": [1]}), "other.parquet")
    predict.assert_refused("other.parquet", "out", naming=("other.parquet", "'path'", "file, id"))
    parquet.write_table(pa.table({"path": [1, 2]}), "numbers.parquet")
    predict.assert_refused("numbers.parquet", "out", naming=("numbers.parquet", "int64"))
    parquet.write_table(pa.table({"path": pa.array([], pa.string())}), "empty.parquet")
    predict.assert_refused("empty.parquet", "out", naming=("empty.parquet",))
    save("a.png")
    predict.assert_refused("a.png", "out.csv", "-k", "parquet", naming=(".parquet",))
