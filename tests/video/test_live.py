"""`carmask live` on a file that it reads like a camera, with and without a window."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, make_clip, overlap, read_clip

from bright_photos import Command
from carmask.pipeline.video.live import Camera, NoCamera, NoWindow, PreviewWindow

# Some seconds of a vehicle that stands still, so that any frame has the same mask.
LONG = Clip(frames=100, still=True, sound=None)


def test_frames_are_recorded_with_their_times(live: Command) -> None:
    make_clip(Path("camera.mp4"), LONG)
    assert live("camera.mp4", "--frames", "30", "--no-window", "--record", "b.mkv", "--kind", "mask") == 0
    assert "30 frames of 160 x 96 px" in live.out
    after = read_clip(Path("b.mkv"))
    assert len(after.frames) == 30
    assert overlap(after.masks(), LONG.vehicles()[:30]) > 0.9
    # At the times at which they came: 25 a second, or fewer where the machine could not follow.
    assert after.times_s[-1] - after.times_s[0] > 0.9 * 29 / 25


def test_the_end_of_the_source_is_the_end(live: Command) -> None:
    make_clip(Path("camera.mp4"), Clip(frames=10, sound=None))
    assert live("camera.mp4", "--no-window") == 0
    assert " of 10 " in live.out


def test_frames_that_nobody_took_in_time_are_dropped(tmp_path: Path) -> None:
    clip = Clip(frames=50, sound=None)
    vehicles_NHW = clip.vehicles()
    with Camera(str(make_clip(tmp_path / "camera.mp4", clip))) as camera:
        shown = []
        for image_HW3, captured_s in camera:
            assert time.perf_counter() - captured_s < 0.2
            mask_HW = image_HW3[..., 0] > 128
            shown.append(max(range(50), key=lambda number: overlap(mask_HW, vehicles_NHW[number])))
            time.sleep(0.2)  # as long as five frames take
    assert shown == sorted(set(shown))
    assert camera.captured == 50
    assert camera.dropped == camera.captured - len(shown)
    assert len(shown) < 25
    assert max(np.diff(shown)) >= 4


@pytest.mark.parametrize("source", ["99", "nowhere.mp4", "notes.mp4"])
def test_a_source_without_frames_is_refused_by_name(live: Command, source: str) -> None:
    Path("notes.mp4").write_text("no video")
    with pytest.raises(NoCamera, match=source):
        Camera(source)
    live.assert_refused(source, "--no-window")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--background", "transparent"), "--background"),
        (("--frames", "0"), "--frames"),
        (("--height-px", "720"), "--width-px"),
        (("--record", "b.avi"), "b.avi"),
        (("--record", "a.mp4"), "a.mp4"),
        (("--record", "a.mp4", "--overwrite"), "a.mp4"),
    ],
)
def test_options_that_do_not_fit_are_refused(live: Command, arguments: tuple[str, ...], named: str) -> None:
    make_clip(Path("a.mp4"), Clip(frames=2, sound=None))
    live.assert_refused("a.mp4", *arguments, "--no-window")
    assert named in live.err


def test_without_a_screen_a_window_is_an_error_only_if_requested(
    live: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.name != "posix" or sys.platform == "darwin":
        pytest.skip("a screen is always there")
    monkeypatch.delenv("DISPLAY", raising=False)
    make_clip(Path("a.mp4"), Clip(frames=3, sound=None))
    with pytest.raises(NoWindow):
        PreviewWindow("carmask", (10, 10))
    live.assert_refused("a.mp4", "--window")
    assert live("a.mp4") == 0
    assert "3 frames of " in live.out


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.usefixtures("live")
def test_ctrl_c_ends_it_and_keeps_the_recording(bright: Path) -> None:
    make_clip(Path("camera.mp4"), Clip(frames=500, still=True, sound=None))
    arguments = ["live", "camera.mp4", "--no-window", "--record", "b.mp4", "-m", str(bright)]
    command = [sys.executable, "-m", "carmask", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline()  # the statistics of the first second
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert " frames of " in out
    assert "Traceback" not in err
    assert 3 < len(read_clip(Path("b.mp4")).frames) < 400


def test_a_window_shows_the_picture_and_its_text() -> None:
    grab = pytest.importorskip("PIL.ImageGrab").grab
    image_HW3 = np.zeros((200, 600, 3), np.uint8)
    image_HW3[:, 300:] = (250, 100, 0)
    try:
        window = PreviewWindow("carmask", (200, 600))
    except NoWindow as error:
        pytest.skip(f"{error}")
    for _ in range(20):
        window.show(image_HW3, "30.0 frames/s")
        window.update()
        time.sleep(0.02)
    screen_HW3 = np.asarray(grab(xdisplay=os.environ.get("DISPLAY")).convert("RGB"))
    orange_HW = (screen_HW3 == (250, 100, 0)).all(axis=2)
    assert orange_HW.sum() == 200 * 300
    letters_HW = (screen_HW3[orange_HW.any(axis=1)][:50] > 200).all(axis=2)  # white, on the upper left
    assert letters_HW.sum() > 50
    window.close()
    assert not window.is_open
    window.close()
