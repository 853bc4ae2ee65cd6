"""Where results go: never over a photo, never over one another, and over nobody else's files."""

import tempfile
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bright_photos import Command, files, mask_of, save, vehicle
from carmask.errors import CarmaskError
from carmask.pipeline.jobs import Jobs, Shard
from carmask.pipeline.sources import find_photos

SUFFIXES = [".png", ".jpg", ".PNG"]
NAMES = ["".join(parts) for count in (1, 2, 3) for parts in product(*[["a", "b"], *[SUFFIXES] * count])]


@pytest.mark.parametrize("destination", [".", "car.png", "../{here}/car.png", "link", "link/car.png"])
def test_a_photo_is_never_overwritten_by_its_result(predict: Command, tmp_path: Path, destination: str) -> None:
    save("car.png")
    Path("link").symlink_to(".")
    before = Path("car.png").read_bytes()
    place = destination.format(here=tmp_path.name)
    predict.assert_refused("car.png", place, "--overwrite", naming=("car.png",))
    assert Path("car.png").read_bytes() == before
    assert files(".") == {"car.png"}


def test_no_photo_is_overwritten_by_the_result_of_another(predict: Command) -> None:
    save("originals/a.png")
    Path("photos").mkdir()
    Path("photos/a.png").symlink_to("../originals/a.png")
    save("photos/b.png")
    before = Path("originals/a.png").read_bytes()
    predict.assert_refused("photos", "originals", "--overwrite", naming=("a.png",))
    assert Path("originals/a.png").read_bytes() == before
    # The results of `cars` go to where photos of `cars/cars` lie.
    save("cars/a.jpg")
    save("cars/cars/cars/a.png")
    save("cars/cars/a.png")
    predict.assert_refused("cars/cars", "cars", naming=(str(Path("cars/cars/a.png")),))


def test_results_may_go_above_the_photos_or_among_them_but_not_to_the_same_place(predict: Command) -> None:
    save("photos/a.jpg")
    save("photos/sub/b.jpg")
    assert predict("photos", ".") == 0
    assert files(".") == {"photos/a.jpg", "photos/sub/b.jpg", "a.png", "sub/b.png"}

    for options in ((), ("--overwrite",)):  # the second time results of the first lie among the photos
        assert predict("photos", "photos/sub/masks", *options) == 0
        assert files("photos") == {"a.jpg", "sub/b.jpg", "sub/masks/a.png", "sub/masks/sub/b.png"}
    # Another kind beside them does not take the first for photos either.
    assert predict("photos", "photos/soft", "-k", "soft") == 0
    assert "photos/sub/masks: " in predict.out
    assert files("photos/soft") == {"a.png", "sub/b.png"}

    Path("same").symlink_to("photos")
    before = files(".")
    for destination in ("photos", "photos/sub/..", "same"):
        predict.assert_refused("photos", destination, naming=(destination,))
    assert files(".") == before


def test_files_of_somebody_else_are_kept_unless_they_may_be_overwritten(predict: Command) -> None:
    save("photos/a.jpg")
    save("photos/b.jpg")
    Path("out").mkdir()
    Path("out/a.png").write_text("dear to me")
    predict.assert_refused("photos", "out", naming=("a.png", "--overwrite"))
    assert Path("out/a.png").read_text() == "dear to me"
    assert predict("photos", "out", "--overwrite") == 0
    assert mask_of("out/a.png").any()


def test_photos_whose_results_would_clash_take_their_whole_names(predict: Command) -> None:
    sizes = {"a.jpg": (20, 30), "a.png": (21, 30), "a.jpg.png": (22, 30), "b.jpg": (23, 30)}
    for name, size_HW in sizes.items():
        save(f"photos/{name}", vehicle(size_HW))
    assert predict("photos", "out") == 0
    results = {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.jpg.png": "a.jpg.png.png", "b.jpg": "b.png"}
    assert files("out") == set(results.values())
    for name, result in results.items():
        assert mask_of(f"out/{result}").shape == sizes[name]


@settings(max_examples=60)
@given(st.sets(st.sampled_from(NAMES), min_size=1, max_size=12), st.integers(1, 4))
def test_no_two_photos_have_one_result_and_every_photo_is_in_one_shard(names: set[str], parts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder, "photos"), Path(folder, "out")
        source.mkdir()
        for name in names:
            (source / name).touch()
        photos = find_photos(source, results=destination)
        jobs = Jobs.plan(photos, ".png", Shard())
        assert {job.photo for job in jobs} == set(source.iterdir())
        results = [job.result for job in jobs]
        assert len(set(results)) == len(jobs)
        # Where even the photos' names differ only in case, so may the results'.
        assert len({result.casefold() for result in results}) == len({name.casefold() for name in names})
        assert all(job.result in (f"{job.photo.stem}.png", f"{job.photo.name}.png") for job in jobs)
        stems = [job.photo.stem.casefold() for job in jobs]
        wholes = {job.photo.name.casefold() for job in jobs}
        for job in jobs:
            stem = job.photo.stem.casefold()
            if stems.count(stem) == 1 and stem not in wholes:
                assert job.result == f"{job.photo.stem}.png"
        shards = [list(Jobs.plan(photos, ".png", Shard(number, parts))) for number in range(1, parts + 1)]
        assert sorted((job for shard in shards for job in shard), key=lambda job: job.position) == list(jobs)


def test_shards_are_about_equal_and_do_not_depend_on_other_photos() -> None:
    names = [f"car{number:03}_{view:02}.jpg" for number in range(100) for view in range(1, 17)]
    shard = [[name for name in names if Shard(number, 8).holds(name)] for number in range(1, 9)]
    assert all(150 <= len(part) <= 250 for part in shard)
    assert [name for name in names[::3] if Shard(1, 8).holds(name)] == [name for name in shard[0] if name in names[::3]]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/4/2", "-1/4", "a/b", "1 / 4", "٣/٤"])
def test_a_shard_is_a_part_and_a_number_of_parts(text: str) -> None:
    with pytest.raises(CarmaskError, match=f"--shard {text}"):
        Shard.parse(text)
    assert Shard.parse("4/4") == Shard(4, 4)


def test_results_have_an_ending_or_go_into_folders(predict: Command) -> None:
    save("photos/a.jpg")
    Path("file").touch()
    before = files(".")
    for destination in ("out.jpg", "out.JPEG", "file", "out.webp"):
        predict.assert_refused("photos/a.jpg", destination, naming=(destination, "PNG"))
    predict.assert_refused("photos/a.jpg", "out.png", "-k", "polygons", naming=("out.png", "JSON"))
    predict.assert_refused("photos/a.jpg", "out.json", naming=("out.json", "--kind"))
    for destination in ("out.png", "out.jpg", "file"):
        predict.assert_refused("photos", destination, naming=(destination,))
    for destination in ("file/out", "x" * 300):
        predict.assert_refused("photos", destination, naming=(destination,))
    for kind in ("carvana-csv", "coco"):
        predict.assert_refused("photos", "out.png", "-k", kind, naming=("out.png", kind))
        predict.assert_refused("photos", "-", "-k", kind, naming=("-", kind))
    predict.assert_refused("photos", "-", naming=("standard output",))
    predict.assert_refused("photos/a.jpg", "-", "--json", naming=("--json", "standard output"))
    predict.assert_refused("photos", "out", "--format", "webp", naming=("--format webp", "mask"))
    predict.assert_refused("photos", "out", "--crop", naming=("--crop", "cutout"))
    predict.assert_refused("photos", "out.csv", "--crop", naming=("--crop", "cutout"))
    # Before a network is loaded: there is none of this name.
    wrong = ("--background", "whyte", "-m", "nomodel")
    predict.assert_refused("photos", "out", "-k", "cutout", *wrong, naming=("whyte", "white"))
    assert files(".") == before
    Path("folder.jpg").mkdir()
    assert predict("photos/a.jpg", "folder.jpg") == 0
    assert predict("photos/a.jpg", "out.PNG") == 0
    assert files(".") == {*before, "folder.jpg/a.png", "out.PNG"}


def test_a_typing_error_is_told_from_a_file(predict: Command) -> None:
    save("photos/a.jpg")
    predict.assert_refused("--jsn", "photos", "out", naming=("--jsn",))
    predict.assert_refused("photos", "out", "--jsn", naming=("--jsn",))
