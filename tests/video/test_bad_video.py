"""`carmask video` with what is no video, what is damaged or cut off, and runs that are stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import Clip, av, make_clip, overlap, read_clip, write_sound
from commands import Command
from PIL import Image

FRONT = {"movflags": "+faststart"}


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def make_others() -> None:
    """Files that hold no video."""
    Path("notes.mp4").write_text("no video " * 1000)
    Path("notes.txt").write_text("no video\n" * 1000)
    Path("empty.mp4").touch()
    Path("folder.mp4").mkdir()
    Image.new("RGB", (64, 48)).save("car.jpg")
    Image.new("RGB", (64, 48)).save("car.png")
    with av.open("sound.mp3", "w") as out:
        sound = out.add_stream("libmp3lame", rate=48_000)
        write_sound(out, sound, 1.0)
    # A list that leads to another file, under the name of a video.
    Path("list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(
    ("source", "because"),
    [
        ("nowhere.mp4", "cannot be opened"),
        ("notes.mp4", "cannot be read as a video"),
        ("notes.txt", "not a video"),
        ("empty.mp4", "cannot be read as a video"),
        ("folder.mp4", "is no file"),
        ("car.jpg", "carmask predict"),
        ("car.png", "carmask predict"),
        ("sound.mp3", "no video in it, only audio"),
        ("list.mp4", "list.mp4"),
    ],
)
def test_what_is_no_video_is_refused_by_name(video: Command, source: str, because: str) -> None:
    make_others()
    before = files()
    video.assert_refused(source, "out.mp4", because=(source, because))
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        (("out.mp4", "--background", "transparent"), (".mov", ".webm", "--background")),
        (("out.mp4", "--kind", "cutout"), ("MP4 has no transparency",)),
        (("out.avi",), (".mp4", ".mov", ".mkv", ".webm")),
        (("out",), (".mp4",)),
        (("out.mp4", "--kind", "mask", "--background", "white"), ("--background", "cutout")),
        (("out.mp4", "--background", "whit"), ("whit", "white")),
        (("out.mp4", "--crf", "52"), ("--crf", "51")),
        (("out.mov", "--kind", "cutout", "--crf", "20"), ("ProRes",)),
        (("out.mp4", "--batch-size", "0"), ("--batch-size",)),
        (("here.mp4",), ("here.mp4", "--overwrite")),
        (("a.mp4", "--overwrite"), ("a.mp4", "source")),
        (("link.mp4", "--overwrite"), ("link.mp4", "source")),
        (("folder.mp4",), ("is a folder",)),
        (("file/out.mp4",), ("out.mp4",)),
        (("x" * 300 + ".mp4",), ("cannot be used",)),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_done(
    video: Command, arguments: tuple[str, ...], because: tuple[str, ...]
) -> None:
    make_clip(Path("a.mp4"), Clip(frames=2, sound=None))
    Path("link.mp4").symlink_to("a.mp4")
    Path("here.mp4").write_bytes(b"mine")
    Path("folder.mp4").mkdir()
    Path("file").touch()
    before = {name: Path(name).read_bytes() for name in files() if Path(name).is_file()}
    video.assert_refused("a.mp4", *arguments, because=because)
    assert {name: Path(name).read_bytes() for name in files() if Path(name).is_file()} == before


def test_a_result_is_replaced_only_when_asked(video: Command) -> None:
    make_clip(Path("a.mp4"), Clip(frames=2, sound=None))
    Path("b.mp4").write_bytes(b"mine")
    assert video("a.mp4", "b.mp4", "--overwrite") == 0
    assert len(read_clip(Path("b.mp4")).frames) == 2


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("a.mp4", Clip(frames=60, container=FRONT)),
        ("a.mkv", Clip(frames=60)),
        ("a.webm", Clip(frames=60, codec="libvpx-vp9", options={"deadline": "realtime"}, sound="libopus")),
    ],
)
def test_of_a_file_that_was_cut_off_what_is_there_is_done_and_it_is_said(video: Command, name: str, clip: Clip) -> None:
    Path("whole").mkdir()
    whole = make_clip(Path("whole") / name, clip).read_bytes()
    Path(name).write_bytes(whole[: len(whole) * 6 // 10])
    assert video(name, "b.mp4", "--kind", "mask") == 2
    assert "warning" in video.err
    assert name in video.err
    after = read_clip(Path("b.mp4"))
    assert 15 < len(after.frames) < 60
    assert overlap(after.masks(), clip.vehicles()[: len(after.frames)]) > 0.9
    # The whole file raises no alarm.
    assert video(f"whole/{name}", "c.mp4") == 0
    assert video.err == ""


def test_an_index_that_was_cut_off_leaves_nothing_to_do(video: Command) -> None:
    whole = make_clip(Path("a.mp4"), Clip(frames=60)).read_bytes()
    Path("a.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    video.assert_refused("a.mp4", "b.mp4", because=("a.mp4", "damaged"))


def test_damage_in_the_middle_is_passed_over_and_said(video: Command) -> None:
    clip = Clip(frames=60, sound=None, options={"crf": "10", "preset": "ultrafast", "g": "10"})
    with av.open(str(make_clip(Path("a.mp4"), clip))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(Path("a.mp4").read_bytes())
    for position, size in places[20:26]:
        data[position : position + size] = bytes(size)
    Path("a.mp4").write_bytes(data)
    assert video("a.mp4", "b.mp4", "--kind", "mask") == 2
    (near_s,) = re.findall(r"damaged, the first near ([0-9.]+) s", video.err)
    assert abs(float(near_s) - 20 / 25) < 0.3  # decoders with many threads notice it some frames later
    after = read_clip(Path("b.mp4"))
    assert 50 <= len(after.frames) < 60
    assert overlap(after.masks()[:20], clip.vehicles()[:20]) > 0.9
    assert overlap(after.masks()[-30:], clip.vehicles()[-30:]) > 0.9


def test_a_video_of_which_nothing_can_be_decoded_is_refused(video: Command) -> None:
    with av.open(str(make_clip(Path("a.mp4"), Clip(frames=5, sound=None)))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(Path("a.mp4").read_bytes())
    for position, size in places:
        data[position : position + size] = bytes(size)
    Path("a.mp4").write_bytes(data)
    video.assert_refused("a.mp4", "b.mp4", because=("a.mp4", "no frame"))
    assert files() == {"a.mp4"}


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_stopped_leaves_nothing_that_looks_finished(
    video: Command, number: signal.Signals, status: int
) -> None:
    make_clip(Path("a.mp4"), Clip(frames=1500, still=True, sound=None))
    command = [sys.executable, "-m", "carmask", "video", "a.mp4", "b.mp4", "-m", str(video.model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(Path().glob(".carmask-*")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in said
    left = files() - {"a.mp4"}
    assert all(name.startswith(".carmask-") for name in left)
    assert bool(left) == (number == signal.SIGKILL)
    # What a killed run left is gone with the next one.
    make_clip(Path("short.mp4"), Clip(frames=2, sound=None))
    assert video("short.mp4", "b.mp4") == 0
    assert files() == {"a.mp4", "short.mp4", "b.mp4"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a way to limit the size of files")
def test_a_full_disk_is_said_and_leaves_nothing(video: Command) -> None:
    make_clip(Path("a.mp4"), Clip(frames=100))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        f"from carmask.cli import main; main(['video', 'a.mp4', 'b.mp4', '--crf', '5', '-m', {str(video.model)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: b.mp4: it cannot be written")
    assert files() == {"a.mp4"}


def test_without_pyav_the_command_says_how_to_get_it_and_its_help_works() -> None:
    for arguments, status in ((["a.mp4", "b.mp4"], 1), (["--help"], 0)):
        program = f"import sys; sys.modules['av'] = None; from carmask.cli import main; main(['video', *{arguments!r}])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        if status:
            assert "pip install 'carmask[video]'" in done.stderr.replace("\n", " ")
