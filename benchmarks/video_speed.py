"""Frames per second of 1280x720 video with the `fast` preset: each stage alone, and from capture to composite.

    python benchmarks/video_speed.py [--model MODEL] [--seconds 10] [--batch-size 4]

Real time is 30 frames per second from capture to composite: decoding H.264, the network, the mask laid over the frame.
Encoding is measured separately. Each stage has the time of one frame on one thread (the network: on all its threads),
and the CPU time of all threads.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from carmask.imaging.decode import Photo
from carmask.pipeline.kinds import OutputStyle
from carmask.pipeline.render import draw, load_background
from carmask.pipeline.video.codecs import choose_encoding
from carmask.pipeline.video.frames import TemporalSmoother, choose_style, segment_frames
from carmask.pipeline.video.live import Camera, show_live
from carmask.pipeline.video.reader import VideoReader
from carmask.pipeline.video.segment_video import segment_video
from carmask.pipeline.video.writer import open_video_writer
from carmask.result import Result
from carmask.segmenter import Segmenter
from record import record
from video_clip import FRAMES_PER_S, SIZE_HW, make_clip

STYLES = {
    "overlay": choose_style("overlay", None),
    "mask": choose_style("mask", None),
    "cutout white": choose_style("cutout", "white"),
    "cutout blur": choose_style("cutout", "blur"),
    "cutout transparent": choose_style("cutout", "transparent"),
}
REPEATS = 40


def median_ms(run: Callable[[], object]) -> dict[str, float]:
    """Median time of a call on this thread, and the CPU time of all threads, in milliseconds."""
    run()
    walls_s, cpus_s = [], []
    for _ in range(REPEATS):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run()
        walls_s.append(time.perf_counter() - wall_s)
        cpus_s.append(time.process_time() - cpu_s)
    return {"ms": _rounded_ms(statistics.median(walls_s)), "cpu_ms": _rounded_ms(statistics.median(cpus_s))}


def frames_ms(frames: int, run: Callable[[], object]) -> dict[str, float]:
    """Time per frame of a call that processes many."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"ms": _rounded_ms(wall_s / frames), "cpu_ms": _rounded_ms(cpu_s / frames)}


def measure_stages(clip: Path, frames: int, segmenter: Segmenter, batch_size: int) -> dict[str, dict[str, float]]:
    """Measure each stage alone."""
    with VideoReader(clip) as reader:
        stages = {"decode H.264": frames_ms(frames, lambda: _exhaust(iter(reader)))}
    with VideoReader(clip) as reader:
        info = reader.info
        frame = next(islice(iter(reader), frames // 2, None))
        image_HWC = reader.to_rgb(frame)
    photo = Photo(image_HWC, info.size_HW)
    fitted = segmenter.fit(photo)
    (raw,) = segmenter.infer([fitted], pad_to=1)
    probability_HW = segmenter.restore(fitted, raw)
    smoother = TemporalSmoother()
    batch = [fitted] * batch_size
    stages |= {
        "to RGB": median_ms(lambda: info.color.to_rgb(frame)),
        "fit": median_ms(lambda: segmenter.fit(photo)),
        "network": median_ms(lambda: segmenter.infer([fitted], pad_to=1)),
        f"network, {batch_size} at once": _divided(median_ms(lambda: segmenter.infer(batch)), batch_size),
        "smooth": median_ms(lambda: smoother.smooth(fitted, raw)),
        "restore": median_ms(lambda: segmenter.restore(fitted, raw)),
    }
    for name, style in STYLES.items():
        composite = partial(draw, style, image_HWC, Result(probability_HW, segmenter.threshold), load_background(style))
        stages[f"composite: {name}"] = median_ms(composite)
    return stages


def measure_encoders(clip: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Measure conversion and encoding alone, for each container, on decoded frames."""
    stages = {}
    for name, transparent in (("a.mp4", False), ("a.webm", False), ("b.webm", True), ("b.mov", True)):
        with VideoReader(clip) as reader:
            info = reader.info
            images = [info.color.to_rgb(frame) for frame in islice(iter(reader), 2 * FRAMES_PER_S)]
        encoding = choose_encoding(folder / name, info.size_HW, transparent=transparent)
        if transparent:
            images = [np.dstack([image_HWC, image_HWC[..., 1]]) for image_HWC in images]

        def encode(encoding: Any = encoding, images: Any = images, info: Any = info, name: str = name) -> None:
            with open_video_writer(folder / name, info, encoding) as writer:
                for number, image_HWC in enumerate(images):
                    writer.write(writer.prepare(image_HWC), round(number / info.rate / info.time_base))

        title = f"{encoding.codec} in {encoding.container}{', with transparency' if transparent else ''}"
        stages[title] = frames_ms(len(images), encode)
    return stages


def composite_rate(clip: Path, segmenter: Segmenter, style: OutputStyle, **options: Any) -> dict[str, float]:
    """Frames per second from the file's bytes to composited RGB pixels, without the first second."""
    background = load_background(style)
    with VideoReader(clip) as reader:
        composite = partial(draw, style, background=background)
        frames = segment_frames(
            iter(reader), segmenter, reader.to_rgb, lambda _, image_HWC, found: composite(image_HWC, found), **options
        )
        with closing(frames):
            _exhaust(islice(frames, FRAMES_PER_S))
            began_s, cpu_s = time.perf_counter(), time.process_time()
            done = _exhaust(frames)
            return _rate(done, time.perf_counter() - began_s, time.process_time() - cpu_s)


def file_rate(clip: Path, segmenter: Segmenter, result: Path, style: OutputStyle, **options: Any) -> dict[str, float]:
    """Frames per second from file to file."""
    cpu_s = time.process_time()
    with VideoReader(clip) as reader:
        summary = segment_video(reader, result, segmenter, style, **options)
    return _rate(summary.frames, summary.seconds, time.process_time() - cpu_s)


def live_rate(clip: Path, segmenter: Segmenter) -> dict[str, float]:
    """Frame rate and latency of `carmask live` on the clip, played like a camera with 30 frames per second."""
    with Camera(str(clip)) as camera:
        composite = partial(draw, STYLES["overlay"])
        frames = segment_frames(
            iter(camera), segmenter, lambda frame: frame[0], lambda _, *drawn: composite(*drawn), ahead=1
        )
        session = show_live(frames, lambda *_: None)
    return {
        "frames_per_s": round(session.frames_per_s, 1),
        "latency_ms": round(session.latency_ms, 1),
        "shown": session.frames,
        "dropped": camera.dropped,
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the packaged `general`")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, default=4)
    given = parser.parse_args()
    segmenter = Segmenter.load(given.model)
    print(f"{segmenter.name}: {segmenter.describe_engine()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = folder / "clip.mp4"
        frames = make_clip(clip, given.seconds)
        stages = measure_stages(clip, frames, segmenter, given.batch_size)
        _print(stages)
        encoders = measure_encoders(clip, folder)
        _print(encoders)
        batched: dict[str, Any] = {"batch_size": given.batch_size}
        overlay, white, alpha = (STYLES[name] for name in ("overlay", "cutout white", "cutout transparent"))
        to_composite = partial(composite_rate, clip, segmenter)
        to_file = partial(file_rate, clip, segmenter)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "capture to composite: overlay": partial(to_composite, overlay, **batched),
            "capture to composite: overlay, one at a time": partial(to_composite, overlay),
            "capture to composite: overlay, smooth": partial(to_composite, overlay, smooth=True, **batched),
            "capture to composite: cutout white": partial(to_composite, white, **batched),
            "file to file: overlay, MP4": partial(to_file, folder / "o.mp4", overlay, **batched),
            "file to file: transparent, WebM": partial(to_file, folder / "o.webm", alpha, **batched),
        }
        rates = {}
        for name, run in runs.items():
            rates[name] = rate = run()
            print(f"{name:<48} {rate['frames_per_s']:7.1f} frames/s  {rate['cpu_ms']:5.1f} ms of CPU time each")
        live = live_rate(clip, segmenter)
        print(f"live: {live}")
    figures = {
        "clip": {"size_HW": SIZE_HW, "frames": frames, "frames_per_s": FRAMES_PER_S},
        "network": segmenter.describe(),
        "batch_size": given.batch_size,
        "stages": stages,
        "encoders": encoders,
        "rates": rates,
        "live": live,
    }
    record("video_speed", figures)


def _exhaust(items: Iterator[Any]) -> int:
    return sum(1 for _ in items)


def _rate(frames: int, wall_s: float, cpu_s: float) -> dict[str, float]:
    return {"frames_per_s": round(frames / wall_s, 1), "cpu_ms": _rounded_ms(cpu_s / frames)}


def _divided(figures: dict[str, float], by: int) -> dict[str, float]:
    return {name: round(value / by, 2) for name, value in figures.items()}


def _rounded_ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _print(stages: dict[str, dict[str, float]]) -> None:
    for name, figures in stages.items():
        print(f"{name:<48} {figures['ms']:7.2f} ms  {figures['cpu_ms']:7.2f} ms of CPU time")


if __name__ == "__main__":
    main()
