"""The sound of a video: packets copied as they are, or encoded anew where the container cannot hold them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from carmask.pipeline.video.reader import open_source, reason

_OPUS_RATE_HZ = 48_000
_BIT_RATE_PER_CHANNEL = 64_000
# Arrangements of loudspeakers that both Opus and AAC have; others are mixed down.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


class AudioTracks:
    """All sound tracks of a file on their way into another, read apart from the picture and only as far as it is."""

    def __init__(self, path: Path) -> None:
        self.remarks: list[str] = []
        self.damage: list[str] = []
        self._source = open_source(path)
        self._out: Any = None
        self._into: dict[int, Any] = {}
        self._copied: set[int] = set()
        self._packets = self._demux()
        self._next: Any = None
        self._reached_s = 0.0

    def add_to(self, out: Any, audio_codec: str) -> None:
        """Add a track to a container (PyAV's, not started) for each of the file's; `audio_codec` where it must be."""
        self._out = out
        for stream in self._source.streams.audio:
            if stream.codec_context is None:
                self.remarks.append("a sound track in a codec that FFmpeg does not know was left out")
            else:
                self._add(stream, audio_codec)

    @property
    def tracks(self) -> int:
        """How many there are."""
        return len(self._into)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def mux_until(self, time_s: float) -> None:
        """Write what is heard up to this time."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None or _start_s(self._next) > time_s:
                return
            packet, self._next = self._next, None
            self._write(packet)

    def finish(self) -> None:
        """Write the rest."""
        self.mux_until(float("inf"))
        for index, stream in self._into.items():
            if index not in self._copied:
                with self._noting_damage(self._reached_s):
                    self._out.mux(stream.encode(None))

    def _add(self, stream: Any, audio_codec: str) -> None:
        context = stream.codec_context
        layout = _LAYOUTS.get(context.layout.nb_channels)
        try:
            into = self._out.add_stream_from_template(stream)
            self._copied.add(stream.index)
            if layout is not None and context.layout.name.endswith(" channels"):
                into.codec_context.layout = layout  # the source does not say which channels they are, and MP4 must
        except ValueError:  # the container cannot hold this codec
            rate_hz = _OPUS_RATE_HZ if audio_codec == "libopus" else context.sample_rate
            into = self._out.add_stream(audio_codec, rate=rate_hz, layout=layout or "stereo")
            into.bit_rate = _BIT_RATE_PER_CHANNEL * into.codec_context.layout.nb_channels
            self.remarks.append(
                f"its sound ({context.name}) cannot be copied into {self._out.format.name} and is encoded anew "
                f"({into.codec_context.layout.name}, {audio_codec})"
            )
        if "language" in stream.metadata:
            into.metadata["language"] = stream.metadata["language"]
        self._into[stream.index] = into

    def _demux(self) -> Iterator[Any]:
        streams = [stream for stream in self._source.streams.audio if stream.index in self._into]
        packets = self._source.demux(*streams) if streams else iter(())
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.damage.append(f"its sound cannot be read to the end ({reason(error)})")
                return
            if packet is None:
                return
            yield packet

    def _write(self, packet: Any) -> None:
        index, start_s = packet.stream.index, _start_s(packet)
        into = self._into[index]
        self._reached_s = start_s
        try:
            frames = [] if index in self._copied else packet.decode()
        except av.FFmpegError as error:
            self._note_damage(start_s, error)
            return
        with self._noting_damage(start_s):
            for frame in frames:
                self._out.mux(into.encode(frame))
            if index in self._copied and packet.dts is not None:  # what has none is the sign that there are no more
                packet.stream = into
                self._out.mux(packet)

    @contextmanager
    def _noting_damage(self, time_s: float) -> Iterator[None]:
        try:
            yield
        except OSError:  # the disk's
            raise
        except (av.FFmpegError, ValueError) as error:
            self._note_damage(time_s, error)

    def _note_damage(self, time_s: float, error: Exception) -> None:
        if not self.damage:
            self.damage.append(f"its sound is damaged, first near {time_s:.1f} s ({reason(error)})")


def _start_s(packet: Any) -> float:
    time = packet.dts if packet.dts is not None else packet.pts
    return float(time * packet.time_base) if time is not None else float("-inf")
