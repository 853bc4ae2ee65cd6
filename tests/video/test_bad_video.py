"""`carmask video` with what is no video, what is damaged or cut off, and runs that are stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, av, make_clip, overlap, read_clip, write_sound
from PIL import Image

from bright_photos import Command
from carmask.pipeline.video.codecs import BadVideo
from carmask.pipeline.video.reader import VideoReader

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
    "source",
    [
        "nowhere.mp4",
        "notes.mp4",
        "notes.txt",
        "empty.mp4",
        "folder.mp4",
        "car.jpg",
        "car.png",
        "sound.mp3",
        "list.mp4",
    ],
)
def test_what_is_no_video_is_refused_by_name(video: Command, source: str) -> None:
    make_others()
    before = files()
    with pytest.raises(BadVideo, match=re.escape(source)):
        VideoReader(Path(source))
    video.assert_refused(source, "out.mp4")
    assert source in video.err
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("out.mp4", "--background", "transparent"), "out.mp4"),
        (("out.mp4", "--kind", "cutout"), "out.mp4"),
        (("out.avi",), "out.avi"),
        (("out",), "out"),
        (("out.mp4", "--kind", "mask", "--background", "white"), "--background"),
        (("out.mp4", "--background", "whit"), "whit"),
        (("out.mp4", "--crf", "52"), "--crf"),
        (("out.mov", "--kind", "cutout", "--crf", "20"), "--crf"),
        (("out.mp4", "--batch-size", "0"), "--batch-size"),
        (("here.mp4",), "here.mp4"),
        (("a.mp4", "--overwrite"), "a.mp4"),
        (("link.mp4", "--overwrite"), "link.mp4"),
        (("folder.mp4",), "folder.mp4"),
        (("file/out.mp4",), "out.mp4"),
        (("x" * 300 + ".mp4",), "xxx.mp4"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_done(
    video: Command, arguments: tuple[str, ...], named: str
) -> None:
    make_clip(Path("a.mp4"), Clip(frames=2, sound=None))
    Path("link.mp4").symlink_to("a.mp4")
    Path("here.mp4").write_bytes(b"mine")
    Path("folder.mp4").mkdir()
    Path("file").touch()
    before = {name: Path(name).read_bytes() for name in files() if Path(name).is_file()}
    video.assert_refused("a.mp4", *arguments)
    assert named in video.err
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
def test_a_truncated_file_is_segmented_as_far_as_it_goes_with_a_warning(video: Command, name: str, clip: Clip) -> None:
    Path("whole").mkdir()
    whole = make_clip(Path("whole") / name, clip).read_bytes()
    Path(name).write_bytes(whole[: len(whole) * 6 // 10])
    assert video(name, "b.mp4", "--kind", "mask") == 2
    assert name in video.err
    after = read_clip(Path("b.mp4"))
    assert 15 < len(after.frames) < 60
    assert overlap(after.masks(), clip.vehicles()[: len(after.frames)]) > 0.9
    # The whole file raises no alarm.
    assert video(f"whole/{name}", "c.mp4") == 0
    assert video.err == ""


def test_a_part_of_a_recording_whose_times_begin_late_is_whole(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", Clip(times=range(1000, 1060), sound=None))
    data = path.read_bytes()
    for share, is_damaged in ((1, False), (0.6, True)):
        path.write_bytes(data[: int(share * len(data))])
        with VideoReader(path) as reader:
            assert 15 < len(list(reader)) <= 60
            assert bool(reader.damage) == is_damaged


def test_a_file_without_its_index_is_refused(video: Command) -> None:
    whole = make_clip(Path("a.mp4"), Clip(frames=60)).read_bytes()
    Path("a.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(BadVideo):
        VideoReader(Path("a.mp4"))
    video.assert_refused("a.mp4", "b.mp4")


def test_damage_in_the_middle_is_skipped_and_located(video: Command) -> None:
    clip = Clip(frames=60, sound=None, options={"crf": "10", "preset": "ultrafast", "g": "10"})
    with av.open(str(make_clip(Path("a.mp4"), clip))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(Path("a.mp4").read_bytes())
    for position, size in places[20:26]:
        data[position : position + size] = bytes(size)
    Path("a.mp4").write_bytes(data)
    assert video("a.mp4", "b.mp4", "--kind", "mask") == 2
    (near_s,) = re.findall(r"near ([0-9.]+) s", video.err)
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
    with pytest.raises(BadVideo):
        VideoReader(Path("a.mp4"))
    video.assert_refused("a.mp4", "b.mp4")
    assert files() == {"a.mp4"}


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_stopped_leaves_nothing_that_looks_finished(
    video: Command, bright: Path, number: signal.Signals, status: int
) -> None:
    make_clip(Path("a.mp4"), Clip(frames=1500, still=True, sound=None))
    command = [sys.executable, "-m", "carmask", "video", "a.mp4", "b.mp4", "-m", str(bright)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(Path().glob(".carmask-*")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    left = files() - {"a.mp4"}
    assert all(name.startswith(".carmask-") for name in left)
    assert bool(left) == (number == signal.SIGKILL)
    # What a killed run left is gone with the next one.
    make_clip(Path("short.mp4"), Clip(frames=2, sound=None))
    assert video("short.mp4", "b.mp4") == 0
    assert files() == {"a.mp4", "short.mp4", "b.mp4"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a way to limit the size of files")
@pytest.mark.usefixtures("video")
def test_a_full_disk_is_an_error_and_leaves_nothing(bright: Path) -> None:
    make_clip(Path("a.mp4"), Clip(frames=100))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        f"from carmask.cli import main; main(['video', 'a.mp4', 'b.mp4', '--crf', '5', '-m', {str(bright)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: b.mp4: ")
    assert files() == {"a.mp4"}


def test_without_pyav_the_command_says_how_to_get_it_and_its_help_works() -> None:
    for arguments, status in ((["a.mp4", "b.mp4"], 1), (["--help"], 0)):
        program = f"import sys; sys.modules['av'] = None; from carmask.cli import main; main(['video', *{arguments!r}])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        if status:
            assert "pip install 'carmask[video]'" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", ["alpha.webm", "alpha.gif"])
@pytest.mark.parametrize("opacity", [90, 255])
def test_transparency_that_is_left_out_is_noted(name: str, opacity: int, tmp_path: Path) -> None:
    path = tmp_path / name
    frames = [np.full((48, 64, 4), (200, 60, 10 * number, 255), np.uint8) for number in range(3)]
    for frame_HW4 in frames:
        frame_HW4[10:30, 10:30, 3] = 0 if opacity < 255 else 255
    if name.endswith(".gif"):
        first, *others = map(Image.fromarray, frames)
        first.save(path, save_all=True, append_images=others, duration=80, disposal=2)
    else:
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libvpx-vp9", rate=25, options={"auto-alt-ref": "0"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuva420p" if opacity < 255 else "yuv420p"
            for frame_HW4 in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HW4, format="rgba")))
            out.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert any("transparen" in note for note in reader.notes) == (opacity < 255)
