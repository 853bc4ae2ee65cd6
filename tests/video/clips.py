"""Short clips in which a bright vehicle crosses a dark ground, and what is read back of results, all by PyAV alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

# All tests that make clips are skipped where it is missing.
av = pytest.importorskip("av", reason="needs PyAV: pip install 'carmask[video]'", exc_type=ImportError)

GROUND_RGB, VEHICLE_RGB = (20, 60, 100), (235, 215, 190)
SIZE_HW = (96, 160)
SOUND_HZ = 48_000
_SAMPLES = 1024


@dataclass(frozen=True)
class Clip:
    """How a clip is made. `times` are time stamps in `time_base`; `rotation` is in degrees, counter-clockwise.

    still: the vehicle does not move. metadata, tags: of the file, and of its codec (color and pixel aspect).
    """

    frames: int = 12
    size_HW: tuple[int, int] = SIZE_HW
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10", "preset": "ultrafast"})
    times: Sequence[int] = ()
    time_base: Fraction = Fraction(1, 25)
    sound: str | None = "aac"
    rotation: int = 0
    mirrored: bool = False
    still: bool = False
    tags: dict[str, Any] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)

    def vehicle(self, number: int) -> NDArray[np.bool_]:
        """Where the vehicle is in a frame as it is stored: symmetric in no way, and moving to the right."""
        height, width = self.size_HW
        mask_HW = np.zeros(self.size_HW, bool)
        left = width // 10 + (0 if self.still else 2 * number)
        mask_HW[height // 2 : height * 4 // 5, left : left + width // 2] = True
        mask_HW[height // 4 : height // 2, left : left + width // 6] = True
        return mask_HW

    def vehicles(self) -> NDArray[np.bool_]:
        """The vehicle in all frames."""
        return np.stack([self.vehicle(number) for number in range(len(self.times) or self.frames)])

    def stored(self, number: int) -> NDArray[np.uint8]:
        """Uint8 RGB pixels of a frame as it is stored."""
        vehicle_HW1 = self.vehicle(number)[..., None]
        return np.where(vehicle_HW1, np.uint8(VEHICLE_RGB), np.uint8(GROUND_RGB))


def make_clip(path: Path, clip: Clip | None = None) -> Path:
    """Write a clip with, where it has sound, as much of it as of pictures."""
    clip = clip or Clip()
    times = clip.times or range(clip.frames)
    with av.open(str(path), "w", container_options=clip.container) as out:
        video = out.add_stream(clip.codec, rate=Fraction(1) / clip.time_base, options=clip.options)
        video.height, video.width = clip.size_HW
        video.pix_fmt = clip.pixel_format
        video.codec_context.time_base = clip.time_base
        for name, value in clip.tags.items():
            setattr(video.codec_context, name, value)
        if clip.rotation or clip.mirrored:
            video.set_display_rotation(clip.rotation, hflip=clip.mirrored)
        sound = out.add_stream(clip.sound, rate=SOUND_HZ, layout="stereo") if clip.sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(clip.stored(number), format="rgb24")
            frame = frame.reformat(
                format=clip.pixel_format,
                dst_colorspace=clip.tags.get("colorspace"),
                src_color_range=2,
                dst_color_range=clip.tags.get("color_range", 1),
            )
            frame.pts, frame.time_base = time, clip.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            write_sound(out, sound, float((times[-1] + 1) * clip.time_base))
    return path


def write_sound(out: Any, sound: Any, seconds: float) -> None:
    """Encode a rising tone."""
    tone_S = np.sin(2 * np.pi * np.cumsum(np.linspace(220, 880, int(seconds * SOUND_HZ))) / SOUND_HZ)
    for start in range(0, len(tone_S), _SAMPLES):
        both_1S = (8000 * tone_S[start : start + _SAMPLES]).astype(np.int16).repeat(2)[None]
        frame = av.AudioFrame.from_ndarray(both_1S, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
        out.mux(sound.encode(frame))
    out.mux(sound.encode(None))


@dataclass(frozen=True)
class Read:
    """What stands in a video file: decoded frames (PyAV's), the times of all, and the sound's packets."""

    frames: list[Any]
    times_s: list[Fraction]
    last_s: Fraction
    sound: list[bytes]
    sound_times_s: list[Fraction]
    codecs: tuple[str, ...]
    pixel_aspect: Fraction | None
    metadata: dict[str, str]

    def pixels(self, pixel_format: str = "rgb24") -> NDArray[np.uint8]:
        """All frames in one array."""
        return np.stack([frame.to_ndarray(format=pixel_format) for frame in self.frames])

    def masks(self) -> NDArray[np.bool_]:
        """Of a video of masks: where it is white, after asserting that it is black everywhere else."""
        gray_NHW = self.pixels("gray")
        assert np.median(np.minimum(gray_NHW, 255 - gray_NHW)) == 0
        return gray_NHW >= 128


def read_clip(path: Path, *, decoder: str | None = None) -> Read:
    """Decode a file, by the decoder of that name where one is given."""
    frames, sound, sound_times_s, ends_s = [], [], [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = av.CodecContext.create(decoder, "r") if decoder else stream.codec_context
        for packet in container.demux():
            if packet.stream.type == "video":
                frames += context.decode(packet if packet.size else None)
                ends_s += [(packet.pts + packet.duration) * packet.time_base] if packet.size else []
            elif packet.size:
                sound.append(bytes(packet))
                sound_times_s.append(packet.pts * packet.time_base)
        return Read(
            frames=frames,
            times_s=[frame.pts * stream.time_base for frame in frames],
            last_s=max(ends_s),
            sound=sound,
            sound_times_s=sound_times_s,
            codecs=tuple(each.codec_context.name for each in container.streams),
            pixel_aspect=stream.sample_aspect_ratio,
            metadata=dict(container.metadata),
        )


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union, of all frames together."""
    assert one.shape == other.shape
    return float((one & other).sum() / (one | other).sum())
