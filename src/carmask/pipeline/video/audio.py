"""Copy the audio tracks of a video, or re-encode them if the new container does not support their codec."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from carmask.pipeline.video.reader import ffmpeg_message, open_video

_OPUS_RATE_HZ = 48_000
_BIT_RATE_PER_CHANNEL = 64_000
# Channel layouts that both Opus and AAC support; others are mixed down.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


class AudioTracks:
    """Copies all audio tracks of a file into another; reads them separately from the frames, and no further than these.

    `notes` lists tracks that could not be copied as they are, `damage` what could not be read. `output_streams` are the
    written tracks, by the index of the source's.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self.damage: list[str] = []
        self._source = open_video(path)
        self._output: Any = None
        self.output_streams: dict[int, Any] = {}
        self._copied: set[int] = set()
        self._packets = self._demux()
        self._next: Any = None
        self._reached_s = 0.0

    def add_to(self, output: Any, audio_codec: str) -> None:
        """Add all tracks to a container (PyAV's, encoding not started); `audio_codec` is for re-encoded ones."""
        self._output = output
        for stream in self._source.streams.audio:
            if stream.codec_context is None:
                self.notes.append("an audio track was left out, because FFmpeg does not support its codec")
            else:
                self._add_track(stream, audio_codec)
        self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def mux_until(self, time_s: float) -> None:
        """Write the audio up to this time."""
        while self._next is not None and _start_s(self._next) <= time_s:
            self._write(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write the rest."""
        self.mux_until(float("inf"))
        for index, stream in self.output_streams.items():
            if index not in self._copied:
                with self._recording_damage(self._reached_s):
                    self._output.mux(stream.encode(None))

    def _add_track(self, stream: Any, audio_codec: str) -> None:
        context = stream.codec_context
        layout = _LAYOUTS.get(context.layout.nb_channels)
        try:
            output_stream = self._output.add_stream_from_template(stream)
            self._copied.add(stream.index)
            if layout is not None and context.layout.name.endswith(" channels"):
                output_stream.codec_context.layout = layout  # the source does not name its channels, and MP4 must
        except ValueError:  # the container does not support this codec
            rate_hz = _OPUS_RATE_HZ if audio_codec == "libopus" else context.sample_rate
            output_stream = self._output.add_stream(audio_codec, rate=rate_hz, layout=layout or "stereo")
            output_stream.bit_rate = _BIT_RATE_PER_CHANNEL * output_stream.codec_context.layout.nb_channels
            self.notes.append(
                f"its audio ({context.name}) cannot be copied into {self._output.format.name} and was re-encoded "
                f"({output_stream.codec_context.layout.name}, {audio_codec})"
            )
        if "language" in stream.metadata:
            output_stream.metadata["language"] = stream.metadata["language"]
        self.output_streams[stream.index] = output_stream

    def _demux(self) -> Iterator[Any]:
        streams = [stream for stream in self._source.streams.audio if stream.index in self.output_streams]
        try:
            yield from self._source.demux(*streams) if streams else ()
        except av.FFmpegError as error:
            self.damage.append(f"its audio cannot be read to the end ({ffmpeg_message(error)})")

    def _write(self, packet: Any) -> None:
        index, start_s = packet.stream.index, _start_s(packet)
        output_stream = self.output_streams[index]
        self._reached_s = start_s
        with self._recording_damage(start_s):
            if index not in self._copied:
                for frame in packet.decode():
                    self._output.mux(output_stream.encode(frame))
            elif packet.dts is not None:  # the last packet is empty and has no time
                packet.stream = output_stream
                self._output.mux(packet)

    @contextmanager
    def _recording_damage(self, time_s: float) -> Iterator[None]:
        try:
            yield
        except OSError:  # an error of the disk, not of the audio
            raise
        except (av.FFmpegError, ValueError) as error:
            if not self.damage:
                cause = ffmpeg_message(error)
                self.damage.append(f"its audio is damaged, the first time near {time_s:.1f} s ({cause})")


def _start_s(packet: Any) -> float:
    time = packet.dts if packet.dts is not None else packet.pts
    return float(time * packet.time_base) if time is not None else float("-inf")
