"""Write a video file: it gets its name only when it is complete."""

import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from carmask.files import UnwritableFile, atomic_write, remove_stale_temporary_files, unwritable
from carmask.pipeline.video.audio import AudioTracks
from carmask.pipeline.video.codecs import BadVideoOutput, Encoding, choose_encoding
from carmask.pipeline.video.pixels import ColorProperties
from carmask.pipeline.video.reader import VideoInfo, ffmpeg_message

# Metadata of the source's container that does not hold for another one.
_CONTAINER_METADATA = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})


class VideoWriter:
    """Encodes frames, and writes the audio of another file between them. Made by `open_video_writer`."""

    def __init__(self, path: Path, info: VideoInfo, encoding: Encoding, output: Any, audio: AudioTracks | None) -> None:
        self.frames = 0
        self._earliest_pts = -sys.maxsize
        self._path = path
        self._info = info
        self._encoding = encoding
        self._output = output
        self._audio = audio
        self._stream = _add_video_stream(output, info, encoding)
        if audio is not None:
            audio.add_to(output, encoding.audio_codec)
        try:
            output.start_encoding()
        except av.FFmpegError as error:
            height, width = info.size_HW
            raise BadVideoOutput(
                f"{path}: FFmpeg cannot write {encoding.codec} of {height} x {width} px into {encoding.container} "
                f"({ffmpeg_message(error)}){self._advice}"
            ) from error

    def prepare(self, image_HWC: NDArray[np.uint8]) -> Any:
        """Convert uint8 pixels with 1, 3 or 4 channels to a frame for the codec; in any thread."""
        return self._info.color.to_frame(image_HWC, self._encoding.pixel_format)

    def write(self, frame: Any, pts: int, duration: int = 0) -> None:
        """Encode a prepared frame, shown at `pts` (in `info.time_base`), and write the audio up to it.

        Raises:
            UnwritableFile: the file cannot be written, for example because the disk is full.
        """
        # A container that counts in milliseconds cannot hold two frames in one.
        pts = max(pts, self._earliest_pts)
        tick = self._stream.time_base / self._info.time_base
        self._earliest_pts = math.ceil((math.floor(pts / tick + Fraction(1, 2)) + 1) * tick) if tick > 1 else pts + 1
        frame.pts, frame.time_base, frame.duration = pts, self._info.time_base, duration
        with self._translated_errors():
            self._output.mux(self._stream.encode(frame))
            if self._audio is not None:
                self._audio.mux_until(float(pts * self._info.time_base))
        self.frames += 1

    def finish(self) -> None:
        """Write what the codec still holds, the rest of the audio, and the index.

        Raises:
            UnwritableFile: the file cannot be written, for example because the disk is full.
        """
        with self._translated_errors():
            self._output.mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.finish()
            self._output.close()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # FFmpeg's errors of the system are among them
            raise unwritable(self._path, error) from error
        except av.FFmpegError as error:
            message = f"{self._path}: it cannot be written ({ffmpeg_message(error)}){self._advice}"
            raise UnwritableFile(message) from error

    @property
    def _advice(self) -> str:
        return "; try --no-audio" if self._audio is not None and self._audio.output_streams else ""


@contextmanager
def open_video_writer(
    path: Path, info: VideoInfo, encoding: Encoding, audio: AudioTracks | None = None
) -> Iterator[VideoWriter]:
    """Yield a writer; the file gets its name only if the block succeeds, and otherwise nothing of it remains.

    info: the properties that it shares with its source. audio: tracks that it gets, to be closed by the caller.

    Raises:
        UnwritableFile: the folder, the file or its name cannot be written.
        BadVideoOutput: the codec does not accept such a video.
    """
    remove_stale_temporary_files([path.parent])
    with atomic_write(path) as stream:
        output = av.open(
            # By its name: FFmpeg can move the index to the front only of a file that it opens itself.
            f"file:{stream.name}",
            "w",
            format=encoding.container,
            container_options=dict(encoding.container_options),
        )
        try:
            writer = VideoWriter(path, info, encoding, output, audio)
            yield writer
            writer.finish()
        except BaseException:
            # The file is given up; the error that is raised already says why.
            with suppress(av.FFmpegError, OSError):
                output.close()
            raise


def open_recorder(path: Path, size_HW: tuple[int, int]) -> AbstractContextManager[VideoWriter]:
    """Open a writer as `open_video_writer` does, for frames of a camera, which are shown at times in milliseconds."""
    # The rate is only a hint to the codec.
    info = VideoInfo(size_HW, Fraction(30), Fraction(1, 1000), ColorProperties.default(size_HW[0]))
    return open_video_writer(path, info, choose_encoding(path, size_HW, transparent=False))


def _add_video_stream(output: Any, info: VideoInfo, encoding: Encoding) -> Any:
    stream = output.add_stream(encoding.codec, rate=info.rate, options=dict(encoding.options))
    context = stream.codec_context
    context.height, context.width = info.size_HW
    context.pix_fmt = encoding.pixel_format
    context.time_base = info.time_base
    context.colorspace, context.color_range = info.color.space, info.color.range
    context.color_primaries, context.color_trc = info.color.primaries, info.color.transfer
    context.flags |= Flags.frame_duration  # nothing else says how long the last frame is shown
    if info.pixel_aspect is not None:
        context.sample_aspect_ratio = info.pixel_aspect
    output.metadata.update(
        {name: text for name, text in info.metadata.items() if name.lower() not in _CONTAINER_METADATA}
    )
    return stream
