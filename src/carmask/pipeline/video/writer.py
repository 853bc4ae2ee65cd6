"""A video file in the making: written aside, and under its own name only when it is whole."""

import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from carmask.files import UnwritableFile, atomic_write, remove_stale_temporary_files, unwritable
from carmask.pipeline.video.audio import AudioTracks
from carmask.pipeline.video.coding import Coding
from carmask.pipeline.video.pyav import BadVideoOutput
from carmask.pipeline.video.reader import VideoInfo, reason

# What a container says about itself, which is not true of another.
_OF_THE_CONTAINER = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})


class VideoWriter:
    """Encodes frames, and the sound of another file beside them. `written_video` makes one."""

    def __init__(self, path: Path, info: VideoInfo, coding: Coding, out: Any, audio: AudioTracks | None) -> None:
        self.frames = 0
        self._earliest = -sys.maxsize
        self._path = path
        self._info = info
        self._coding = coding
        self._out = out
        self._audio = audio
        self._video = _add_video(out, info, coding)
        if audio is not None:
            audio.add_to(out, coding.audio_codec)
        try:
            out.start_encoding()
        except av.FFmpegError as error:
            height, width = info.size_HW
            raise BadVideoOutput(
                f"{path}: FFmpeg cannot write {coding.codec} of {height} x {width} px into {coding.container} "
                f"({reason(error)}){self._advice}"
            ) from error

    @property
    def remarks(self) -> list[str]:
        """What became of the sound otherwise than being copied."""
        return self._audio.remarks if self._audio else []

    @property
    def damage(self) -> list[str]:
        """What of the sound was lost."""
        return self._audio.damage if self._audio else []

    def prepare(self, image_HWC: NDArray[np.uint8]) -> Any:
        """A frame as the codec takes it, of uint8 pixels with 1, 3 or 4 channels; in any thread."""
        return self._info.color.from_pixels(image_HWC, self._coding.pixel_format)

    def write(self, frame: Any, pts: int, duration: int = 0) -> None:
        """Encode a prepared frame, shown at `pts` (in `info.time_base`), and write the sound up to it.

        Raises:
            UnwritableFile: the disk is full, or refuses.

        """
        # Containers that count in milliseconds cannot hold two frames in one.
        pts = max(pts, self._earliest)
        tick = self._video.time_base / self._info.time_base
        self._earliest = math.ceil((math.floor(pts / tick + Fraction(1, 2)) + 1) * tick) if tick > 1 else pts + 1
        frame.pts, frame.time_base, frame.duration = pts, self._info.time_base, duration
        with self._failures():
            self._out.mux(self._video.encode(frame))
            if self._audio is not None:
                self._audio.mux_until(float(pts * self._info.time_base))
        self.frames += 1

    def finish(self) -> None:
        """Write what the codec still holds, the rest of the sound, and the index.

        Raises:
            UnwritableFile: the disk is full, or refuses.

        """
        with self._failures():
            self._out.mux(self._video.encode(None))
            if self._audio is not None:
                self._audio.finish()
            self._out.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # FFmpeg's errors of the system are among them
            raise unwritable(self._path, error) from error
        except av.FFmpegError as error:
            raise UnwritableFile(f"{self._path}: it cannot be written ({reason(error)}){self._advice}") from error

    @property
    def _advice(self) -> str:
        return "; try --no-audio" if self._audio is not None and self._audio.tracks else ""


@contextmanager
def written_video(
    path: Path, info: VideoInfo, coding: Coding, *, audio_of: Path | None = None
) -> Iterator[VideoWriter]:
    """Give a writer; the file gets its name only when the block ends well, and else nothing is left of it.

    Args:
        path: The file.
        info: What it shares with its source.
        coding: How it is written.
        audio_of: The file whose sound it gets; none when not given.

    Raises:
        UnwritableFile: the folder, the file or its name cannot be written.
        BadVideoOutput: the codec refuses such a video.

    """
    remove_stale_temporary_files([path.parent])
    with atomic_write(path) as stream, _sound_of(audio_of) as audio:
        out = av.open(
            # By its name: the index can be moved to the front only of a file that FFmpeg opens itself.
            f"file:{stream.name}",
            "w",
            format=coding.container,
            container_options=dict(coding.container_options),
        )
        try:
            writer = VideoWriter(path, info, coding, out, audio)
            yield writer
            writer.finish()
        except BaseException:
            # What is given up need not come to a good end, and why is told already.
            with suppress(av.FFmpegError, OSError):
                out.close()
            raise


def _sound_of(path: Path | None) -> AbstractContextManager[AudioTracks | None]:
    return nullcontext() if path is None else closing(AudioTracks(path))


def _add_video(out: Any, info: VideoInfo, coding: Coding) -> Any:
    stream = out.add_stream(coding.codec, rate=info.rate, options=dict(coding.options))
    context = stream.codec_context
    context.height, context.width = info.size_HW
    context.pix_fmt = coding.pixel_format
    context.time_base = info.time_base
    context.colorspace, context.color_range = info.color.space, info.color.range
    context.color_primaries, context.color_trc = info.color.primaries, info.color.transfer
    context.flags |= Flags.frame_duration  # of the last frame nothing else tells how long it is shown
    if info.pixel_aspect is not None:
        context.sample_aspect_ratio = info.pixel_aspect
    kept = {name: text for name, text in info.metadata.items() if name.lower() not in _OF_THE_CONTAINER}
    out.metadata.update(kept)
    return stream
