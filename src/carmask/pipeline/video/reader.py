"""Frames of a video file in the order in which they are shown, and plain words for what is wrong with it."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from carmask.errors import CarmaskError, first_line
from carmask.pipeline.video.picture import Color, Turn
from carmask.pipeline.video.pyav import BadVideo

# Only the file itself is opened: a playlist must not lead to other machines.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
# Containers whose header says how long the file is, so that a missing end shows. Others are measured by FFmpeg.
_DECLARE_DURATION = frozenset({"matroska,webm", "avi"})
_MISSING_FROM_S = 0.5


@dataclass(frozen=True)
class VideoInfo:
    """What a result shares with its source. `size_HW` is the picture's as it is shown; pixel_aspect is width / height.

    rate: frames per second on average, time_base: seconds per time stamp. expected_frames: as far as the file tells.
    """

    size_HW: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    color: Color
    pixel_aspect: Fraction | None = None
    turn: Turn = Turn()  # noqa: RUF009 - it is frozen
    metadata: dict[str, str] = field(default_factory=dict)
    expected_frames: int | None = None


class VideoReader:
    """A video file, opened; iterating gives its decoded frames with time stamps that rise.

    `damage` says what could not be decoded, `remarks` what is taken otherwise than the file has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.remarks: list[str] = []
        self._container = open_source(path)
        try:
            self._stream = _video_stream(path, self._container)
            self._stream.thread_type = "AUTO"
            self._reached_s = 0.0
            self._lost: list[float | None] = []
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise BadVideo(f"{path}: no frame of it can be decoded; it is damaged or empty")
            self._frames = chain([first], self._decoded)
            self.info = self._describe(first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Any]:
        """Decoded frames (PyAV's), each of the first one's size, `pts` in `info.time_base`."""
        before: int | None = None
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        moved = resized = 0
        height, width = self._stored_HW
        for frame in self._frames:
            if before is not None and (frame.pts is None or frame.pts <= before):
                moved += frame.pts is not None
                frame.pts = before + (step if frame.pts is None else 1)
            before = frame.pts = frame.pts or 0
            if (frame.height, frame.width) != (height, width):
                resized += 1
                frame = frame.reformat(width=width, height=height)
            yield frame
        if moved:
            self.remarks.append(f"{moved} frames were not later than the frame before them and are now, by one tick")
        if resized:
            self.remarks.append(f"{resized} frames had another size and were scaled to the first one's")
        self._note_losses()

    def _describe(self, first: Any) -> VideoInfo:
        stream = self._stream
        turn, is_exact = Turn.of(first)
        if not is_exact:
            self.remarks.append("the video asks for a turn that is no quarter turn; the nearest was taken")
        self._stored_HW = (first.height, first.width)
        height, width = self._stored_HW[::-1] if turn.transposed else self._stored_HW
        aspect = stream.sample_aspect_ratio or None
        if aspect is not None and turn.transposed:
            aspect = 1 / aspect
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        count = stream.frames or (stream.duration and round(stream.duration * stream.time_base * rate))
        if not count and self._container.duration:
            count = round(self._container.duration / av.time_base * rate)
        if max((component.bits for component in first.format.components), default=8) > 8:
            self.remarks.append(f"its {first.format.name} pixels are taken with 8 bits for each color")
        return VideoInfo(
            size_HW=(height, width),
            rate=rate,
            time_base=stream.time_base,
            pixel_aspect=aspect,
            color=Color.of(first),
            turn=turn,
            metadata=dict(self._container.metadata),
            expected_frames=count or None,
        )

    def _decode(self) -> Iterator[Any]:
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.damage.append(f"it cannot be read beyond {self._reached_s:.1f} s ({reason(error)})")
                return
            if packet is None:
                return
            if packet.pts is not None and packet.time_base:
                end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached_s = max(self._reached_s, end_s)
            if packet.stream.index != self._stream.index:
                continue
            yield from self._decode_packet(packet)

    def _decode_packet(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._lost.append(None if packet.pts is None else float(packet.pts * packet.time_base))
            return
        for frame in frames:
            if frame.is_corrupt:
                self._lost.append(frame.time)
            yield frame

    def _note_losses(self) -> None:
        if self._lost:
            times = [time for time in self._lost if time is not None]
            where = f", the first near {min(times):.1f} s" if times else ""
            self.damage.append(f"{len(self._lost)} places of it are damaged{where}; frames there are missing or wrong")
        if not self.damage and self._is_cut_off():
            self.damage.append(f"its end is missing; it stops at {self._reached_s:.1f} s")

    def _is_cut_off(self) -> bool:
        """Whether the file ends before what its index or its header speaks of."""
        size = self.path.stat().st_size
        if any(entry.pos + entry.size > size for entry in self._stream.index_entries):
            return True
        container = self._container
        if container.format.name not in _DECLARE_DURATION or not container.duration:
            return False
        end_s = ((container.start_time or 0) + container.duration) / av.time_base
        return bool(self._reached_s < end_s - _MISSING_FROM_S)


def open_source(path: Path) -> Any:
    """Open a file for reading with PyAV, refusing what is no video before a decoder meets it.

    Raises:
        BadVideo: there is no such file, or it is none that FFmpeg takes for a video.

    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadVideo(f"{path}: cannot be opened ({error.strerror}); name a video file") from error
    if not stat.S_ISREG(mode):
        raise BadVideo(f"{path}: is no file; name a video file")
    try:
        # With its protocol a name like `take:2.mp4` cannot be taken for one.
        container = av.open(f"file:{path}", options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise BadVideo(
            f"{path}: cannot be read as a video ({reason(error)}); it is damaged, or something else"
        ) from error
    kind = container.format.name
    refused: CarmaskError | None = None
    if kind.endswith("_pipe") or kind == "image2":
        refused = BadVideo(f"{path}: is a picture; cut it out with `carmask predict`")
    elif kind == "tty":
        refused = BadVideo(f"{path}: is a text, not a video")
    if refused is not None:
        container.close()
        raise refused
    return container


def reason(error: Exception) -> str:
    """What FFmpeg says, without its number and without the file's name."""
    return getattr(error, "strerror", None) or first_line(error)


def _video_stream(path: Path, container: Any) -> Any:
    covers = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        raise BadVideo(f"{path}: there is no video in it, only {_list_streams(container)}")
    usable = [stream for stream in streams if stream.codec_context is not None]
    if not usable:
        raise BadVideo(f"{path}: its video is in a codec that FFmpeg cannot decode here")
    best = container.streams.best("video")
    return best if best in usable else usable[0]


def _list_streams(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing at all"
