"""The clip of the video benchmarks: rendered example cars that turn and move, with audio."""

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carstudio import render_dataset

SIZE_HW = (720, 1280)
FRAMES_PER_S = 30
CARS, VIEWS = 2, 16
AUDIO_HZ = 48_000
_SWAY_PX = 48
# The color properties in the file (ITU-T H.273, and FFmpeg's AVColorRange).
_BT709, _LIMITED = 1, 1
_SAMPLES_PER_FRAME = 1024


def render_views() -> list[NDArray[np.uint8]]:
    """Photos of the example cars from all sides, uint8 RGB, with a margin to sway in."""
    height, width = SIZE_HW[0] + 2 * _SWAY_PX, SIZE_HW[1] + 2 * _SWAY_PX
    with tempfile.TemporaryDirectory() as folder:
        made = render_dataset(folder, cars=CARS, views=VIEWS, size_HW=(height, width), workers=2)
        return [np.asarray(Image.open(path).convert("RGB")) for path in sorted((made.root / "train").glob("*.jpg"))]


def frame(views: list[NDArray[np.uint8]], number: int, frames: int) -> NDArray[np.uint8]:
    """One frame: the car turns by a view now and then and sways all the time, with camera noise."""
    view_HW3 = views[number * len(views) // frames]
    top = _SWAY_PX + round(_SWAY_PX * np.sin(number / 17))
    left = _SWAY_PX + round(_SWAY_PX * np.cos(number / 23))
    height, width = SIZE_HW
    noise_HW3 = np.random.default_rng(number).integers(-3, 4, (height // 2, width // 2, 1), dtype=np.int16)
    noise_HW = cv2.resize(noise_HW3, (width, height), interpolation=cv2.INTER_NEAREST)
    seen_HW3 = view_HW3[top : top + height, left : left + width]
    frame_HW3: NDArray[np.uint8] = np.clip(seen_HW3 + noise_HW[..., None], 0, 255).astype(np.uint8)
    return frame_HW3


def make_clip(path: Path, seconds: float) -> int:
    """Write an H.264 clip with AAC audio; returns the number of frames."""
    views = render_views()
    frames = round(seconds * FRAMES_PER_S)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FRAMES_PER_S, options={"preset": "veryfast", "crf": "20"})
        video.height, video.width = SIZE_HW
        video.pix_fmt = "yuv420p"
        video.codec_context.colorspace, video.codec_context.color_range = _BT709, _LIMITED
        audio = out.add_stream("aac", rate=AUDIO_HZ, layout="stereo")
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(frame(views, number, frames), format="rgb24")
            out.mux(video.encode(picture.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)))
        out.mux(video.encode(None))
        _write_audio(out, audio, frames / FRAMES_PER_S)
    return frames


def _write_audio(out: Any, audio: Any, seconds: float) -> None:
    """A tone of changing pitch, so that no two packets are the same."""
    time_S = np.arange(round(seconds * AUDIO_HZ)) / AUDIO_HZ
    tone_S = (9000 * np.sin(2 * np.pi * (330 * time_S + 40 * np.sin(1.3 * time_S)))).astype(np.int16)
    for start in range(0, len(tone_S), _SAMPLES_PER_FRAME):
        both_1S = tone_S[start : start + _SAMPLES_PER_FRAME].repeat(2)[None]
        packet = av.AudioFrame.from_ndarray(both_1S, format="s16", layout="stereo")
        packet.sample_rate, packet.pts, packet.time_base = AUDIO_HZ, start, Fraction(1, AUDIO_HZ)
        out.mux(audio.encode(packet))
    out.mux(audio.encode(None))
