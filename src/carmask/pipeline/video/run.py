"""A video in, a video out."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmask.pipeline.regions import ALL_REGIONS, Regions
from carmask.pipeline.video.coding import choose_coding
from carmask.pipeline.video.frames import Finished, finish_frames
from carmask.pipeline.video.look import Compositor
from carmask.pipeline.video.reader import VideoReader
from carmask.pipeline.video.writer import VideoWriter, written_video
from carmask.progress import Progress
from carmask.runner import map_ahead
from carmask.segmenter import Segmenter

_AHEAD = 4


@dataclass(frozen=True)
class Outcome:
    """What became of a video. `damage` is what of the source was lost, `remarks` what is otherwise than in it.

    empty: frames in which no vehicle was found. seconds: how long it took.
    """

    frames: int
    empty: int
    seconds: float
    damage: tuple[str, ...]
    remarks: tuple[str, ...]


def cut_video(
    reader: VideoReader,
    destination: Path,
    segmenter: Segmenter,
    composite: Compositor,
    *,
    transparent: bool = False,
    crf: int | None = None,
    audio: bool = True,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Outcome:
    """Cut the vehicle out of every frame of a video; frame times, sound, turn, pixel aspect and colors stay.

    The calling thread owns the engine; a few frames are in memory at any time.

    Args:
        reader: The source, open.
        destination: The result, whose ending says how it is coded (`choose_coding`).
        segmenter: What finds the vehicle.
        composite: What makes a frame of the result.
        transparent: Whether it gives an alpha channel.
        crf: Constant rate factor; the codec's usual one when not given.
        audio: Whether the sound is taken over.
        regions: Which parts of a mask are kept.
        smooth: Whether to smooth over time.
        batch_size: Frames that pass through the network together.
        progress: Called with the frames that are done and how many there are, as far as the file tells.

    Raises:
        BadVideoOutput: the result cannot be what its name says.
        UnwritableFile: the result cannot be written.

    """
    began_s = time.perf_counter()
    info = reader.info
    coding = choose_coding(destination, info.size_HW, transparent=transparent, crf=crf)
    with written_video(destination, info, coding, audio_of=reader.path if audio else None) as writer:
        frames = finish_frames(
            iter(reader),
            segmenter,
            lambda frame: info.turn(info.color.to_rgb(frame)),
            lambda image_HWC, found_HW: writer.prepare(composite(image_HWC, found_HW, segmenter.threshold)),
            regions=regions,
            smooth=smooth,
            batch_size=batch_size,
            ahead=_AHEAD,
        )
        with closing(frames):
            empty = _write(frames, writer, info.expected_frames or 0, progress)
    return Outcome(
        frames=writer.frames,
        empty=empty,
        seconds=time.perf_counter() - began_s,
        damage=(*reader.damage, *writer.damage),
        remarks=(*reader.remarks, *writer.remarks),
    )


def _write(frames: Iterator[Finished[Any, Any]], writer: VideoWriter, expected: int, progress: Progress | None) -> int:
    """Encode frame after frame in a thread of its own; in how many no vehicle was found."""

    def encode(finished: Finished[Any, Any]) -> bool:
        writer.write(finished.made, finished.source.pts, finished.source.duration)
        return finished.is_found

    empty = 0
    with ThreadPoolExecutor(1) as encoding:
        for done, is_found in enumerate(map_ahead(encoding, encode, frames, _AHEAD), start=1):
            empty += not is_found
            if progress is not None:
                progress(done, max(done, expected))
    return empty
