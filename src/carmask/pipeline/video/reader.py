"""Read the frames of a video file in display order, and report damage in plain words."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.pipeline.video.codecs import BadVideo
from carmask.pipeline.video.pixels import ColorProperties, Orientation

# Only the file itself is opened: a playlist must not lead to other machines.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
# The headers of these containers state the duration of the whole file, which shows whether its end is missing. For the
# others FFmpeg measures the duration itself.
_DECLARE_DURATION = frozenset({"matroska,webm", "avi"})
_MISSING_FROM_S = 0.5


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video that its result keeps.

    size_HW: of the upright picture. rate: mean frames per second. time_base: seconds per time stamp unit. pixel_aspect:
    width / height. expected_frames: if the file states it.
    """

    size_HW: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    color: ColorProperties
    pixel_aspect: Fraction | None = None
    orientation: Orientation = Orientation()  # noqa: RUF009 - it is frozen
    metadata: dict[str, str] = field(default_factory=dict)
    expected_frames: int | None = None


class VideoReader:
    """An open video file; iterating yields its decoded frames with increasing time stamps.

    `damage` lists what could not be decoded, `notes` what was changed, such as time stamps that did not increase.
    """

    def __init__(self, path: Path) -> None:
        """Open a video file and decode its first frame.

        Raises:
            BadVideo: the file cannot be read, or holds no video that can be decoded.
        """
        self.path = path
        self.damage: list[str] = []
        self.notes: list[str] = []
        self._container = open_video(path)
        try:
            self._stream = _video_stream(path, self._container)
            self._stream.thread_type = "AUTO"
            self._reached_s = 0.0
            self._lost_s: list[float | None] = []
            decoded = self._decode()
            first = next(decoded, None)
            if first is None:
                raise BadVideo(f"{path}: none of its frames can be decoded; it is damaged or empty")
            self._frames = chain([first], decoded)
            self._stored_HW = (first.height, first.width)
            self.info = self._describe(first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Any]:
        """Yield decoded frames (PyAV's), all of the first one's size, with `pts` in `info.time_base`."""
        previous: int | None = None
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        moved = resized = 0
        height, width = self._stored_HW
        for frame in self._frames:
            if previous is not None and (frame.pts is None or frame.pts <= previous):
                moved += frame.pts is not None
                frame.pts = previous + (step if frame.pts is None else 1)
            previous = frame.pts = frame.pts or 0
            if (frame.height, frame.width) != (height, width):
                resized += 1
                frame = frame.reformat(width=width, height=height)
            yield frame
        if moved:
            self.notes.append(f"{moved} frames were not later than the frame before and were moved by one tick")
        if resized:
            self.notes.append(f"{resized} frames had another size and were scaled to the size of the first frame")
        self._report_damage()

    def to_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Convert a decoded frame to upright uint8 RGB pixels, (height, width, 3); in any thread."""
        return self.info.orientation.apply(self.info.color.to_rgb(frame))

    def _describe(self, first: Any) -> VideoInfo:
        stream = self._stream
        orientation, is_exact = Orientation.of(first)
        if not is_exact:
            self.notes.append("its rotation is not a multiple of 90 degrees and was rounded to the nearest")
        if max((component.bits for component in first.format.components), default=8) > 8:
            self.notes.append(f"its {first.format.name} pixels were reduced to 8 bits per color")
        if stream.metadata.get("alpha_mode") == "1" or _is_transparent(first):
            self.notes.append("it is partly transparent, and its transparency was left out")
        aspect = stream.sample_aspect_ratio or None
        if aspect is not None and orientation.transposed:
            aspect = 1 / aspect
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        frames = stream.frames or (stream.duration and round(stream.duration * stream.time_base * rate))
        if not frames and self._container.duration:
            frames = round(self._container.duration / av.time_base * rate)
        height, width = self._stored_HW[::-1] if orientation.transposed else self._stored_HW
        return VideoInfo(
            size_HW=(height, width),
            rate=rate,
            time_base=stream.time_base,
            pixel_aspect=aspect,
            color=ColorProperties.of(first),
            orientation=orientation,
            metadata=dict(self._container.metadata),
            expected_frames=frames or None,
        )

    def _decode(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base:
                    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._reached_s = max(self._reached_s, end_s)
                if packet.stream.index == self._stream.index:
                    yield from self._decode_packet(packet)
        except av.FFmpegError as error:
            self.damage.append(f"it cannot be read beyond {self._reached_s:.1f} s ({ffmpeg_message(error)})")

    def _decode_packet(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._lost_s.append(None if packet.pts is None else float(packet.pts * packet.time_base))
            return
        for frame in frames:
            if frame.is_corrupt:
                self._lost_s.append(frame.time)
            yield frame

    def _report_damage(self) -> None:
        if self._lost_s:
            known_s = [time_s for time_s in self._lost_s if time_s is not None]
            where = f", the first near {min(known_s):.1f} s" if known_s else ""
            self.damage.append(f"it is damaged in {len(self._lost_s)} places{where}; frames there are missing or wrong")
        if not self.damage and self._is_truncated():
            self.damage.append(f"its end is missing; it stops at {self._reached_s:.1f} s")

    def _is_truncated(self) -> bool:
        """Whether the file is shorter than its index or its header says."""
        size_bytes = self.path.stat().st_size
        if any(entry.pos + entry.size > size_bytes for entry in self._stream.index_entries):
            return True
        container = self._container
        if container.format.name not in _DECLARE_DURATION or not container.duration:
            return False
        # FFmpeg counts it from time 0, wherever the first frame is.
        return bool(self._reached_s < container.duration / av.time_base - _MISSING_FROM_S)


def open_video(path: Path) -> Any:
    """Open a file for reading with PyAV; pictures and texts, which FFmpeg would decode too, are rejected.

    Raises:
        BadVideo: there is no such file, or FFmpeg does not recognize it as a video.
    """
    if not path.is_file():
        raise BadVideo(f"{path}: is not a file; name a video file")
    try:
        # With the protocol in front, FFmpeg does not read a name such as `take:2.mp4` as a protocol.
        container = av.open(f"file:{path}", options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise BadVideo(
            f"{path}: cannot be read as a video ({ffmpeg_message(error)}); it is damaged, or not a video"
        ) from error
    if container.format.name.endswith("_pipe") or container.format.name in ("image2", "tty"):
        container.close()
        raise BadVideo(f"{path}: is a picture or a text, not a video; use `carmask predict` for photos")
    return container


def ffmpeg_message(error: Exception) -> str:
    """What FFmpeg says about an error, without its number and the file name."""
    return getattr(error, "strerror", None) or first_line(error)


def _video_stream(path: Path, container: Any) -> Any:
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise BadVideo(f"{path}: holds no video, only {kinds}")
    usable = [stream for stream in streams if stream.codec_context is not None]
    if not usable:
        raise BadVideo(f"{path}: its video codec is not supported by this FFmpeg")
    best = container.streams.best("video")
    return best if best in usable else usable[0]


def _is_transparent(frame: Any) -> bool:
    has_alpha = any(component.is_alpha for component in frame.format.components)
    return has_alpha and bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)
