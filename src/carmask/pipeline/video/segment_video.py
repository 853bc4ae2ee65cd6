"""Segment a video file: a video in, a video out."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmask.imaging.background import Background
from carmask.imaging.look import TRANSPARENT
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.kinds import OutputStyle
from carmask.pipeline.render import draw, load_background
from carmask.pipeline.video.audio import AudioTracks
from carmask.pipeline.video.codecs import choose_encoding
from carmask.pipeline.video.frame_files import FrameFiles
from carmask.pipeline.video.frames import is_transparent, segment_frames
from carmask.pipeline.video.hdr import in_video_range
from carmask.pipeline.video.moving_background import MovingBackground, is_moving
from carmask.pipeline.video.reader import VideoReader
from carmask.pipeline.video.writer import open_video_writer
from carmask.progress import Progress
from carmask.runner import map_ahead
from carmask.segmenter import Segmenter

_AHEAD = 4


@dataclass(frozen=True)
class VideoSummary:
    """The outcome of a video.

    empty: frames without a vehicle. seconds: how long it took. damage: what of the source was lost. notes: what is
    different from the source.
    """

    frames: int
    empty: int
    seconds: float
    damage: tuple[str, ...]
    notes: tuple[str, ...]


def segment_video(
    reader: VideoReader | FrameFiles,
    destination: Path,
    segmenter: Segmenter,
    style: OutputStyle,
    *,
    crf: int | None = None,
    audio: bool = True,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> VideoSummary:
    """Segment every frame of a video, or of pictures that are its frames.

    Frame times, audio, orientation, pixel aspect and colors stay as they are.

    The calling thread runs the networks; a few frames are in memory at any time. The suffix of `destination`, `crf` and
    the transparency of `style` choose the encoding (`choose_encoding`). `progress` is called with the number of
    finished frames and the expected number.

    Raises:
        BadVideoOutput: the video cannot be encoded as its name and options say.
        UnwritableFile: the result cannot be written.
    """
    started_s = time.perf_counter()
    info = reader.info
    encoding = choose_encoding(destination, info.size_HW, transparent=is_transparent(style), crf=crf)
    moves = style.kind == "cutout" and is_moving(style.look.background)
    background = None if moves else load_background(style)
    if background is not None and style.look.background.strip().lower() not in (TRANSPARENT, "blur"):
        background = in_video_range(background, info.color)
    empty = 0
    with (
        MovingBackground(Path(style.look.background.strip())) if moves else nullcontext() as moving,
        closing(AudioTracks(reader.path)) if audio and isinstance(reader, VideoReader) else nullcontext() as tracks,
        open_video_writer(destination, info, encoding, tracks) as writer,
    ):

        def read() -> Iterator[tuple[Any, Background | None]]:
            start = None
            for frame in reader:
                start = frame.pts if start is None else start
                ground = moving.at(float((frame.pts - start) * info.time_base)) if moving is not None else background
                yield frame, in_video_range(ground, info.color) if moves and ground is not None else ground

        frames = segment_frames(
            read(),
            segmenter,
            lambda item: reader.to_rgb(item[0]),
            lambda item, image_HWC, found: writer.prepare(draw(style, image_HWC, found, item[1])),
            regions=regions,
            smooth=smooth,
            batch_size=batch_size,
            ahead=_AHEAD,
        )

        def encode(segmented: tuple[tuple[Any, Background | None], Any, bool]) -> bool:
            (frame, _), output, has_vehicle = segmented
            writer.write(output, frame.pts, frame.duration)
            return has_vehicle

        with closing(frames), ThreadPoolExecutor(1, "encode") as encoder:
            for done, has_vehicle in enumerate(map_ahead(encoder, encode, frames, _AHEAD), start=1):
                empty += not has_vehicle
                if progress is not None:
                    progress(done, max(done, info.expected_frames or 0))
    sources = (reader, tracks) if tracks is not None else (reader,)
    return VideoSummary(
        frames=writer.frames,
        empty=empty,
        seconds=time.perf_counter() - started_s,
        damage=tuple(line for source in sources for line in source.damage),
        notes=tuple(line for source in sources for line in source.notes),
    )
