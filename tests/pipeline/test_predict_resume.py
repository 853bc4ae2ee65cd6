"""A run that was killed, or that comes again: what is done stays, what is not is done, and nothing is half done."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bright_onnx import write_bright_onnx
from bright_photos import Command, contents, files, mask_of, save, vehicle
from carmask.files import NoSpace, unwritable
from carmask.pipeline.jobs import Job, Jobs, Shard
from carmask.pipeline.journal import Journal, read_entries
from carmask.pipeline.predict import predict_jobs
from carmask.pipeline.sources import find_photos
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter

PHOTOS = 120


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos large enough for a run of them to take a while, one of them empty and one broken."""
    root = tmp_path_factory.mktemp("many") / "photos"
    for number in range(PHOTOS):
        mask_HW = np.roll(vehicle((360, 540)), number, axis=1)
        save(root / f"{number % 7}" / f"{number:03}.jpg", mask_HW if number != 50 else np.zeros_like(mask_HW))
    (root / "3" / "broken.jpg").write_bytes(b"no picture")
    return root


def start(model: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    options = ["-m", model, "--engine", "onnxruntime", "--batch-size", 2]
    command = [sys.executable, "-m", "carmask", "predict", *map(str, [*arguments, *options])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> int:
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 2), errors.decode()
    return process.returncode


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("destination", "journal", "options", "kills"),
    [("out", "out/.carmask-results.jsonl", ("-k", "soft"), 4), ("out/table.csv.gz", "out/table.csv.gz.part", (), 3)],
)
def test_killed_at_random_and_resumed_it_ends_in_the_same_bytes(
    model: Path, many: Path, tmp_path: Path, destination: str, journal: str, options: tuple[str, ...], kills: int
) -> None:
    assert finish(start(model, many, tmp_path / "whole" / destination, *options)) == 2
    whole = contents(tmp_path / "whole")
    size_bytes = (tmp_path / "whole" / journal).stat().st_size

    draw = random.Random(destination)
    killed = 0
    # Not so late that it may be done before the kill arrives, where others keep the machine busy.
    for share in sorted(draw.uniform(0, 0.6) for _ in range(kills)):
        process = start(model, many, tmp_path / "killed" / destination, *options)
        written = tmp_path / "killed" / journal
        while process.poll() is None and (not written.exists() or written.stat().st_size < share * size_bytes):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == kills
    assert contents(tmp_path / "killed") != whole, "nothing was left to be done"
    done_before = len(list(read_entries(tmp_path / "killed" / journal)))
    assert 0 < done_before < PHOTOS

    assert finish(start(model, many, tmp_path / "killed" / destination, *options)) == 2
    assert contents(tmp_path / "killed") == whole


def test_what_is_done_is_not_done_again(predict: Command) -> None:
    save("photos/a.png")
    save("photos/sub/b.png")
    assert predict("photos", "out") == 0
    before = contents("out")
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    assert predict("photos", "out") == 0
    assert predict.done_before == (2, 2)
    assert contents("out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert predict("photos", "out", "--overwrite") == 0
    assert contents("out") == before
    assert all(path.stat().st_mtime_ns > time_ns for path, time_ns in times.items())


def test_what_was_made_otherwise_is_never_taken_for_done(predict: Command) -> None:
    save("photos/a.png")
    assert predict("photos", "out") == 0
    before = contents("out")
    for options, difference in (
        (("-k", "soft"), "(kind: mask there, soft now)"),
        # What a kind brings along was not chosen.
        (("-k", "cutout"), "(kind: mask there, cutout now)"),
        (("-k", "cutout", "--crop"), "(kind: mask there, cutout now; crop: false there, true now)"),
        (("--threshold", "0.3"), "threshold: 0.5 there, 0.3 now"),
        (("--vehicles", "largest", "--tta", "flip"), "tta: none there, flip now; vehicles: all there, largest now"),
    ):
        predict.assert_refused("photos", "out", *options, naming=(difference, "--overwrite"))
        assert contents("out") == before
    assert predict("photos", "out", "-k", "soft", "--overwrite") == 0
    assert contents("out")["a.png"] != before["a.png"]
    assert predict("photos", "out", "-k", "soft") == 0
    assert predict.done_before == (1, 1)
    # Where the results are gone, how they were made does not matter.
    Path("out/a.png").unlink()
    assert predict("photos", "out") == 0
    assert contents("out") == before


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
@pytest.mark.parametrize(
    ("destination", "journal"), [("out", "out/.carmask-results.jsonl"), ("out.csv", "out.csv.part")]
)
def test_what_another_process_writes_is_not_even_overwritten(predict: Command, destination: str, journal: str) -> None:
    save("photos/a.png")
    save("out/a.png")
    with Journal(Path(journal), {"kind": "soft"}) as other:
        other.add({"result": "a.png", "photo": "a.png"})
        before = contents(".")
        predict.assert_refused("photos", destination, "--overwrite", naming=(journal,))
        assert contents(".") == before


def test_another_network_of_the_same_name_is_another_recipe(predict: Command) -> None:
    save("photos/a.png")
    assert predict("photos", "out") == 0
    predict.always = ("-m", str(write_bright_onnx(Path("other.onnx"), slope=3.0)), *predict.always[2:])
    predict.assert_refused("photos", "out", naming=("model", "bright", "--overwrite"))


def test_photos_that_changed_are_done_again(predict: Command) -> None:
    for name in ("same", "larger", "newer", "added later"):
        save(f"photos/{name}.png")
    Path("photos/added later.png").rename("later.png")
    assert predict("photos", "out") == 0
    times = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}

    Path("later.png").rename("photos/added later.png")
    save("photos/larger.png", vehicle((99, 98)))
    os.utime("photos/larger.png", (0, 0))
    os.utime("photos/newer.png", (time.time() - 1, time.time() - 1))
    for name in ("same", "newer"):
        os.utime(f"out/{name}.png", (time.time() - 60, time.time() - 60))
        times[f"{name}.png"] = Path(f"out/{name}.png").stat().st_mtime_ns
    os.utime("photos/same.png", (time.time() + 9e8, time.time() + 9e8))  # a camera whose clock is wrong
    assert predict("photos", "out") == 0
    assert predict.done_before == (1, 4)
    assert predict.written == (3, 3)
    changed = {path.name for path in Path("out").glob("*.png") if path.stat().st_mtime_ns != times.get(path.name)}
    assert changed == {"larger.png", "newer.png", "added later.png"}
    assert mask_of("out/larger.png").shape == (99, 98)


MOVES = {
    "by moving": lambda source, place: source.rename(place),
    "as cp -p and rsync -t": shutil.copy2,
    "in place": lambda source, place: (place.write_bytes(source.read_bytes()), shutil.copystat(source, place)),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("size_HW", [(40, 60), (1200, 1800)])
@pytest.mark.parametrize("result", ["out", "out.csv"])
def test_photos_of_one_size_and_date_that_were_exchanged_are_done_again(
    predict: Command, move: Callable[[Path, Path], object], size_HW: tuple[int, int], result: str
) -> None:
    save("photos/a.bmp", vehicle(size_HW))
    save("photos/b.bmp", vehicle(size_HW)[::-1, ::-1])
    Path("photos/broken.bmp").write_bytes(b"no picture")  # so that the table is not finished
    for name in "ab":
        os.utime(f"photos/{name}.bmp", (1.6e9, 1.6e9))
    assert predict("photos", result) == 2
    before = Path("out.csv").read_text().splitlines() if result == "out.csv" else contents("out")
    # Another place, and another folder on the way, do not make other photos of them.
    shutil.copytree("photos", "moved")
    Path("photos").rename("gone")
    Path("moved").rename("photos")
    assert predict("photos", result) == 2
    assert predict.done_before == (2, 3)

    for source, place in (("a", "aside"), ("b", "a"), ("aside", "b")):
        move(Path(f"photos/{source}.bmp"), Path(f"photos/{place}.bmp"))
    Path("photos/aside.bmp").unlink(missing_ok=True)
    assert predict("photos", result) == 2
    assert predict.done_before == (0, 0)
    if result == "out":
        assert (mask_of("out/a.png") == mask_of("out/b.png")[::-1, ::-1]).all()
        assert contents("out")["a.png"] == before["b.png"]
    else:
        after = Path("out.csv").read_text().splitlines()
        assert after[1].partition(",")[2] == before[2].partition(",")[2] != before[1].partition(",")[2]


def test_a_photo_that_was_edited_in_place_and_kept_its_date_is_done_again(predict: Command) -> None:
    mask_HW = vehicle((1200, 1800))
    save("photos/a.bmp", mask_HW)
    os.utime("photos/a.bmp", (1.6e9, 1.6e9))
    assert predict("photos", "out") == 0
    before = contents("out")
    Path("photos/a.bmp").chmod(0o600)  # a new change time alone is no edit
    assert predict("photos", "out") == 0
    assert predict.done_before == (1, 1)
    mask_HW[20:60, 1700:1740] = True
    save("edited.bmp", mask_HW)
    Path("photos/a.bmp").write_bytes(Path("edited.bmp").read_bytes())
    os.utime("photos/a.bmp", (1.6e9, 1.6e9))
    assert predict("photos", "out") == 0
    assert contents("out") != before


def test_a_cut_out_from_a_mask_is_made_again_when_its_photo_was_exchanged(convert: Command) -> None:
    save("photos/a.bmp")
    save("photos/b.bmp", vehicle()[::-1, ::-1])
    save("masks/a.png")
    os.utime("photos/b.bmp", (1.6e9, 1.6e9))
    command = ("masks", "out", "--photos", "photos", "-k", "cutout")
    assert convert(*command) == 0
    before = contents("out")
    assert convert(*command) == 0
    assert convert.done_before == (1, 1)
    Path("photos/b.bmp").replace("photos/a.bmp")
    assert convert(*command) == 0
    assert contents("out")["a.png"] != before["a.png"]


def test_a_result_that_is_not_what_was_written_is_made_again(predict: Command) -> None:
    """As after a power cut, which may leave a file's name and not its bytes."""
    save("photos/a.png")
    assert predict("photos", "out") == 0
    before = contents("out")
    Path("out/a.png").write_bytes(b"")
    assert predict("photos", "out") == 0
    assert contents("out") == before


def test_what_fails_now_leaves_no_result_of_before(predict: Command) -> None:
    save("photos/a.png")
    save("photos/b.png")
    assert predict("photos", "out") == 0
    Path("photos/a.png").write_bytes(b"no picture any more")
    assert predict("photos", "out") == 2
    assert files("out") == {"b.png", "failures.csv"}


def test_shards_together_make_the_whole(predict: Command) -> None:
    for number in range(12):
        save(f"photos/{number}.png", np.roll(vehicle(), 5 * number))
    assert predict("photos", "whole") == 0
    assert predict("photos", "whole.csv") == 0
    assert predict("photos", "whole.json", "-k", "coco") == 0
    rows = []
    images, annotations = [], []
    for shard in ("1/3", "2/3", "3/3"):
        part = f"-{shard.replace('/', 'of')}"
        assert predict("photos", "parts", "--shard", shard) == 0
        assert predict("photos", "parts.csv", "--shard", shard) == 0
        assert predict("photos", "parts.json", "-k", "coco", "--shard", shard) == 0
        rows += Path(f"parts{part}.csv").read_text().splitlines()[1:]
        coco = json.loads(Path(f"parts{part}.json").read_text())
        images += coco["images"]
        annotations += coco["annotations"]
    masks = {name: data for name, data in contents("whole").items() if name.endswith(".png")}
    assert {name: data for name, data in contents("parts").items() if name.endswith(".png")} == masks
    assert sorted(rows) == Path("whole.csv").read_text().splitlines()[1:]
    whole = json.loads(Path("whole.json").read_text())
    assert sorted(images, key=lambda image: image["id"]) == whole["images"]
    assert sorted(annotations, key=lambda annotation: annotation["id"]) == whole["annotations"]
    # The whole is known to be done, whoever did it.
    assert predict("photos", "parts") == 0
    assert predict.done_before == (12, 12)


def test_a_shard_without_photos_is_no_error(predict: Command) -> None:
    save("photos/a.png")
    statuses = [predict("photos", "out", "--shard", f"{number}/2") for number in (1, 2)]
    assert statuses == [0, 0]
    assert files("out") == {"a.png"}


def test_one_photo_has_no_shards(predict: Command) -> None:
    save("a.png")
    for destination in ("out", "b.png", "out.csv"):
        predict.assert_refused("a.png", destination, "--shard", "2/2", naming=("--shard 2/2", "a.png"))
    assert files(".") == {"a.png"}


def test_a_table_that_is_there_is_kept_and_one_with_failures_is_completed(predict: Command) -> None:
    save("photos/a.png")
    Path("photos/b.png").write_bytes(b"no picture")
    assert predict("photos", "out.csv") == 2
    assert files(".") >= {"out.csv", "out.csv.part", "out.csv.failures.csv"}
    assert len(Path("out.csv").read_text().splitlines()) == 2
    save("photos/b.png", np.zeros((20, 30), dtype=bool))
    assert predict("photos", "out.csv") == 0
    assert predict.done_before == (1, 2)
    assert Path("out.csv").read_text().splitlines()[2] == "b.png,"
    assert files(".") - {"photos/a.png", "photos/b.png"} == {"out.csv", "out.csv.no_vehicle.txt"}

    predict.assert_refused("photos", "out.csv", naming=("out.csv", "--overwrite"))
    assert predict("photos", "out.csv", "--threshold", "0.3", "--overwrite") == 0
    Path("mine.csv.part").write_text("dear to me\n")
    predict.assert_refused("photos", "mine.csv", naming=("mine.csv.part",))
    assert Path("mine.csv.part").read_text() == "dear to me\n"


def test_a_full_disk_ends_the_run_at_once_and_another_failure_does_not(model: Path, tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / f"{number:02}.png")
    jobs = Jobs.plan(find_photos(tmp_path, results=None), ".png", Shard())
    segmenter = Segmenter.load(model, RunOptions("onnxruntime"))
    tried: list[int] = []

    def put(job: Job, *_: object) -> str:
        tried.append(job.position)
        if job.position == 3:
            raise unwritable(job.photo, OSError(errno.EACCES, "Permission denied"))
        if job.position == 9:
            raise unwritable(job.photo, OSError(errno.ENOSPC, "No space left on device"))
        return str(job.photo)

    outcomes = predict_jobs(jobs, segmenter, put, batch_size=2, workers=2)
    done = [next(outcomes) for _ in range(9)]
    assert [outcome.job.position for outcome in done if outcome.cause] == [3]
    with pytest.raises(NoSpace, match=r"09\.png.*No space left"):
        next(outcomes)
    assert max(tried) < 20
