"""`carmask video` from clip to clip: frames, times, sound, the way up, colors and transparency."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import GROUND_RGB, VEHICLE_RGB, Clip, av, make_clip, overlap, read_clip
from numpy.typing import NDArray

from bright_photos import Command
from carmask.imaging.draw import OVERLAY_RGB
from carmask.segmenter import Segmenter

UNEVEN = Clip(times=[0, 10, 15, 40, 41, 60, 120, 121, 122, 130, 200, 230], time_base=Fraction(1, 100))
VP9 = {"crf": "12", "b": "0", "deadline": "realtime", "cpu-used": "8"}


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def test_mp4_has_the_same_frames_times_and_sound_packets_and_the_segmenter_s_masks(
    video: Command, bright: Path
) -> None:
    clip = Clip(frames=40)
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", "b.mp4", "--kind", "mask") == 0
    before, after = read_clip(Path("a.mp4")), read_clip(Path("b.mp4"))
    assert after.times_s == before.times_s
    assert after.last_s == before.last_s
    assert after.sound == before.sound
    assert len(after.sound) > 70
    assert after.sound_times_s == before.sound_times_s
    assert after.codecs == before.codecs == ("h264", "aac")
    segment = Segmenter.load(bright)
    masks_NHW = np.stack([segment(image_HW3).mask for image_HW3 in before.pixels()])
    assert overlap(after.masks(), masks_NHW) > 0.99
    assert overlap(masks_NHW, clip.vehicles()) > 0.9
    assert files() == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize(
    ("name", "codecs", "tick_s"),
    [
        ("b.mov", ("h264", "aac"), Fraction(0)),
        ("b.m4v", ("h264", "aac"), Fraction(0)),
        ("b.mkv", ("h264", "aac"), Fraction(1, 1000)),
        ("b.webm", ("vp9", "opus"), Fraction(1, 1000)),
    ],
)
def test_uneven_times_are_kept_in_every_container(
    video: Command, name: str, codecs: tuple[str, ...], tick_s: Fraction
) -> None:
    make_clip(Path("a.mp4"), UNEVEN)
    assert video("a.mp4", name, "--kind", "mask") == 0
    before, after = read_clip(Path("a.mp4")), read_clip(Path(name))
    assert after.codecs == codecs
    gaps_s, gaps_before_s = ([b - a for a, b in pairwise(read.times_s)] for read in (after, before))
    assert len(gaps_s) == len(gaps_before_s) == len(UNEVEN.times) - 1
    assert max(abs(gap - was) for gap, was in zip(gaps_s, gaps_before_s, strict=True)) <= tick_s
    assert abs((after.last_s - after.times_s[0]) - (before.last_s - before.times_s[0])) <= Fraction(1, 50)
    # Picture and sound stay together.
    late_s = (after.times_s[0] - after.sound_times_s[0]) - (before.times_s[0] - before.sound_times_s[0])
    assert abs(late_s) <= Fraction(1, 50)
    assert overlap(after.masks(), UNEVEN.vehicles()) > 0.9
    if codecs[1] == "aac":
        assert after.sound == before.sound
    else:
        length_s = after.sound_times_s[-1] - after.sound_times_s[0]
        assert abs(length_s - (before.sound_times_s[-1] - before.sound_times_s[0])) < Fraction(1, 20)


def test_sound_is_copied_where_the_container_can_hold_it_and_left_out_where_asked(video: Command) -> None:
    make_clip(Path("a.mkv"), Clip(codec="libvpx-vp9", options=VP9, sound="libopus"))
    assert video("a.mkv", "b.webm") == 0
    assert video.err == ""
    assert read_clip(Path("b.webm")).sound == read_clip(Path("a.mkv")).sound
    make_clip(Path("c.mov"), Clip(sound="pcm_s16le"))
    # An AVI does not say which loudspeakers its channels are for, and MP4 must.
    make_clip(Path("c.avi"), Clip(codec="mpeg4", options={}, sound="pcm_s16le"))
    for source, result in (("c.mov", "d.mov"), ("c.avi", "d.mp4")):
        assert video(source, result) == 0
        assert b"".join(read_clip(Path(result)).sound) == b"".join(read_clip(Path(source)).sound) != b""
    assert video("c.mov", "e.mp4", "--no-audio") == 0
    assert read_clip(Path("e.mp4")).codecs == ("h264",)


@pytest.mark.parametrize(("rotation", "mirrored"), [(90, False), (180, False), (-90, False), (90, True), (0, True)])
def test_a_turned_video_stands_upright(video: Command, rotation: int, mirrored: bool) -> None:
    clip = Clip(rotation=rotation, mirrored=mirrored, tags={"sample_aspect_ratio": Fraction(4, 3)})
    make_clip(Path("a.mov"), clip)
    assert video("a.mov", "b.mp4", "--kind", "mask") == 0
    shown_NHW = np.rot90(clip.vehicles(), rotation // 90, axes=(1, 2))
    if mirrored:
        shown_NHW = shown_NHW[:, :, ::-1]
    after = read_clip(Path("b.mp4"))
    assert {frame.rotation for frame in after.frames} == {0}
    assert overlap(after.masks(), shown_NHW) > 0.9
    assert after.pixel_aspect == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))


@pytest.mark.parametrize(
    ("colorspace", "color_range", "primaries", "transfer"), [(1, 1, 1, 1), (6, 2, 6, 6), (9, 1, 9, 14), (5, 2, 5, 6)]
)
def test_colors_and_how_they_are_coded_are_kept(
    video: Command, colorspace: int, color_range: int, primaries: int, transfer: int
) -> None:
    tags = {
        "colorspace": colorspace,
        "color_range": color_range,
        "color_primaries": primaries,
        "color_trc": transfer,
    }
    clip = Clip(frames=3, tags=tags, sound=None)
    make_clip(Path("a.mp4"), clip)
    (was, *_) = read_clip(Path("a.mp4")).frames
    assert (was.colorspace, was.color_range) == (colorspace, color_range)
    for name in ("b.mp4", "b.webm"):
        assert video("a.mp4", name, "--crf", "8") == 0
        (first, *_) = read_clip(Path(name)).frames
        assert (first.colorspace, first.color_range) == (colorspace, color_range)
        if name == "b.mp4":  # VP9 itself knows only the matrix; the rest stands in WebM's header
            assert (first.color_primaries, first.color_trc) == (primaries, transfer)
        # The ground beside the vehicle has the levels that it had, whatever they mean.
        levels = [frame.to_ndarray()[:10, :100].mean() for frame in (first, was)]
        assert abs(levels[0] - levels[1]) < 1.5
        np.testing.assert_allclose(shown(first)[5, 5], GROUND_RGB, atol=5)
    # A color that is laid behind is meant as it is seen.
    assert video("a.mp4", "green.mp4", "--background", "#20c060", "--crf", "8") == 0
    (first, *_) = read_clip(Path("green.mp4")).frames
    np.testing.assert_allclose(shown(first)[5, 5], (0x20, 0xC0, 0x60), atol=3)


def shown(frame: Any) -> NDArray[np.uint8]:
    """RGB pixels by what the frame says about its colors, computed as ITU-T H.273 has it."""
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[frame.colorspace]
    y_HW, u_HW, v_HW = frame.reformat(format="yuv444p").to_ndarray().astype(float)
    if frame.color_range == 2:
        y_HW, u_HW, v_HW = y_HW / 255, (u_HW - 128) / 255, (v_HW - 128) / 255
    else:
        y_HW, u_HW, v_HW = (y_HW - 16) / 219, (u_HW - 128) / 224, (v_HW - 128) / 224
    r_HW, b_HW = y_HW + 2 * (1 - red) * v_HW, y_HW + 2 * (1 - blue) * u_HW
    g_HW = (y_HW - red * r_HW - blue * b_HW) / (1 - red - blue)
    return (np.stack([r_HW, g_HW, b_HW], axis=2).clip(0, 1) * 255).round().astype(np.uint8)


def test_an_overlay_tints_the_vehicle_alone_and_a_background_replaces_all_else(video: Command) -> None:
    clip = Clip()
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", "overlay.mp4") == 0
    assert video("a.mp4", "green.mp4", "--background", "#00ff00") == 0
    inside_NHW = clip.vehicles()
    for name, ground_rgb, vehicle_rgb in (
        ("overlay.mp4", GROUND_RGB, np.add(VEHICLE_RGB, OVERLAY_RGB) / 2),
        ("green.mp4", (0, 255, 0), VEHICLE_RGB),
    ):
        pixels_NHW3 = read_clip(Path(name)).pixels()
        np.testing.assert_allclose(np.median(pixels_NHW3[~inside_NHW], axis=0), ground_rgb, atol=6)
        np.testing.assert_allclose(np.median(pixels_NHW3[inside_NHW], axis=0), vehicle_rgb, atol=16)


@pytest.mark.parametrize("name", ["b.webm", "b.mkv"])
def test_vp9_has_an_alpha_channel_that_libvpx_reads_back(video: Command, name: str) -> None:
    clip = Clip()
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", name, "--background", "transparent") == 0
    after = read_clip(Path(name), decoder="libvpx-vp9")
    assert {frame.format.name for frame in after.frames} == {"yuva420p"}
    rgba_NHW4 = after.pixels("rgba")
    assert overlap(rgba_NHW4[..., 3] >= 128, clip.vehicles()) > 0.9
    assert np.median(rgba_NHW4[..., 3][~clip.vehicles()]) == 0
    np.testing.assert_allclose(np.median(rgba_NHW4[clip.vehicles()], axis=0), (*VEHICLE_RGB, 255), atol=5)
    # Browsers look for transparency only where the header announces it: AlphaMode (53 C0), one byte, 1.
    assert b"\x53\xc0\x81\x01" in Path(name).read_bytes()[:1000]


def test_prores_4444_has_an_alpha_channel(video: Command) -> None:
    clip = Clip(frames=4)
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", "b.mov", "--kind", "cutout") == 0
    after, before = read_clip(Path("b.mov")), read_clip(Path("a.mp4"))
    assert after.codecs == ("prores", "aac")
    assert after.sound == before.sound
    assert all(frame.format.name.startswith("yuva444p") for frame in after.frames)
    rgba_NHW4 = after.pixels("rgba")
    assert overlap(rgba_NHW4[..., 3] >= 128, clip.vehicles()) > 0.9
    np.testing.assert_allclose(np.median(rgba_NHW4[clip.vehicles()], axis=0), (*VEHICLE_RGB, 255), atol=3)


def test_odd_sizes_stay_as_they_are(video: Command) -> None:
    clip = Clip(frames=3, size_HW=(95, 161), codec="ffv1", options={}, sound=None)
    make_clip(Path("a.mkv"), clip)
    for name in ("b.mp4", "b.webm"):
        assert video("a.mkv", name, "--kind", "mask") == 0
        assert overlap(read_clip(Path(name)).masks(), clip.vehicles()) > 0.9


def test_what_has_no_times_gets_them_and_what_changes_its_size_is_scaled(video: Command) -> None:
    one, other = Clip(sound=None), Clip(size_HW=(192, 320), sound=None)
    streams = [make_clip(Path(f"{number}.h264"), clip).read_bytes() for number, clip in enumerate((one, other))]
    Path("a.h264").write_bytes(b"".join(streams))
    assert video("a.h264", "b.mp4", "--kind", "mask") == 0
    after = read_clip(Path("b.mp4"))
    assert after.times_s == [Fraction(number, 25) for number in range(24)]
    assert overlap(after.masks(), np.concatenate([one.vehicles(), other.vehicles()[:, ::2, ::2]])) > 0.9
    assert "12" in video.err  # frames were scaled


def test_metadata_of_the_file_is_kept(video: Command) -> None:
    make_clip(Path("a.mp4"))
    with av.open("a.mp4") as source, av.open("titled.mp4", "w") as out:
        into = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        out.metadata["title"] = "Grüße"
        for packet in source.demux():
            if packet.size:
                packet.stream = into[packet.stream.index]
                out.mux(packet)
    assert video("titled.mp4", "b.mp4") == 0
    assert read_clip(Path("b.mp4")).metadata["title"] == "Grüße"


def test_frames_without_a_vehicle_are_counted(video: Command) -> None:
    clip = Clip(frames=5)
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", "b.mp4", "--kind", "mask", "--threshold", "0.9999") == 0
    assert "5 of 5" in video.out
    assert read_clip(Path("b.mp4")).pixels("gray").max() < 10


def test_several_frames_at_once_give_the_same_masks(video: Command) -> None:
    make_clip(Path("a.mp4"), Clip(frames=7))
    assert video("a.mp4", "b.mp4", "--kind", "mask") == 0
    assert video("a.mp4", "c.mp4", "--kind", "mask", "--batch-size", "3") == 0
    np.testing.assert_array_equal(read_clip(Path("b.mp4")).pixels(), read_clip(Path("c.mp4")).pixels())
