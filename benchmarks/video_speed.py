"""Frames a second of 1280x720 video with the `fast` preset: each stage alone, and from capture to composite.

    python benchmarks/video_speed.py [--model MODEL] [--seconds 10] [--batch-size 4]

Real time is 30 frames a second from capture to composite: decoding H.264, the network, the mask laid over the frame.
What encoding costs stands apart. Each figure of a stage is the time of one frame on one thread (of the network: on all
of its), and the processor's own time, which counts every thread.
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
from carmask.pipeline.video.camera import Camera
from carmask.pipeline.video.coding import choose_coding
from carmask.pipeline.video.frames import finish_frames
from carmask.pipeline.video.kinds import Look
from carmask.pipeline.video.live import Pace, watch
from carmask.pipeline.video.look import compositor
from carmask.pipeline.video.reader import VideoReader
from carmask.pipeline.video.run import cut_video
from carmask.pipeline.video.smooth import Smoother
from carmask.pipeline.video.writer import written_video
from carmask.segmenter import Segmenter
from record import record
from video_clip import FRAMES_PER_S, SIZE_HW, make_clip

LOOKS = {
    "overlay": Look("overlay"),
    "mask": Look("mask"),
    "cutout white": Look("cutout", "white"),
    "cutout blur": Look("cutout", "blur"),
    "cutout transparent": Look("cutout"),
}
REPEATS = 40


def median_ms(run: Callable[[], object]) -> dict[str, float]:
    """Median time of a call on this thread, and the processor's own time in all threads, in milliseconds."""
    run()
    walls_s, cpus_s = [], []
    for _ in range(REPEATS):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run()
        walls_s.append(time.perf_counter() - wall_s)
        cpus_s.append(time.process_time() - cpu_s)
    return {"ms": _rounded_ms(statistics.median(walls_s)), "cpu_ms": _rounded_ms(statistics.median(cpus_s))}


def frames_ms(frames: int, run: Callable[[], object]) -> dict[str, float]:
    """Time of a frame where many are done in one call."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"ms": _rounded_ms(wall_s / frames), "cpu_ms": _rounded_ms(cpu_s / frames)}


def measure_stages(clip: Path, frames: int, segmenter: Segmenter, batch_size: int) -> dict[str, dict[str, float]]:
    """Each stage by itself."""
    with VideoReader(clip) as reader:
        stages = {"decode H.264": frames_ms(frames, lambda: _exhaust(iter(reader)))}
    with VideoReader(clip) as reader:
        info = reader.info
        frame = next(islice(iter(reader), frames // 2, None))
        image_HWC = info.color.to_rgb(frame)
    photo = Photo(image_HWC, info.size_HW)
    fitted = segmenter.fit(photo)
    (raw,) = segmenter.infer([fitted], pad_to=1)
    probability_HW = segmenter.restore(fitted, raw)
    smoother = Smoother()
    batch = [fitted] * batch_size
    stages |= {
        "to RGB": median_ms(lambda: info.color.to_rgb(frame)),
        "fit": median_ms(lambda: segmenter.fit(photo)),
        "network": median_ms(lambda: segmenter.infer([fitted], pad_to=1)),
        f"network, {batch_size} at once": _shared(median_ms(lambda: segmenter.infer(batch)), batch_size),
        "smooth": median_ms(lambda: smoother(fitted, raw)),
        "restore": median_ms(lambda: segmenter.restore(fitted, raw)),
    }
    for name, look in LOOKS.items():
        composite = partial(compositor(look), image_HWC, probability_HW, segmenter.threshold)
        stages[f"composite: {name}"] = median_ms(composite)
    return stages


def measure_encoders(clip: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Conversion and encoding alone, for each container; frames as they were decoded."""
    stages = {}
    for name, is_transparent in (("a.mp4", False), ("a.webm", False), ("b.webm", True), ("b.mov", True)):
        with VideoReader(clip) as reader:
            info = reader.info
            images = [info.color.to_rgb(frame) for frame in islice(iter(reader), 2 * FRAMES_PER_S)]
        coding = choose_coding(folder / name, info.size_HW, transparent=is_transparent)
        if coding.has_alpha:
            images = [np.dstack([image_HWC, image_HWC[..., 1]]) for image_HWC in images]

        def encode(coding: Any = coding, images: Any = images, info: Any = info, name: str = name) -> None:
            with written_video(folder / name, info, coding) as writer:
                for number, image_HWC in enumerate(images):
                    writer.write(writer.prepare(image_HWC), round(number / info.rate / info.time_base))

        title = f"{coding.codec} in {coding.container}{', with transparency' if coding.has_alpha else ''}"
        stages[title] = frames_ms(len(images), encode)
    return stages


def composite_rate(clip: Path, segmenter: Segmenter, look: Look, **options: Any) -> dict[str, float]:
    """Frames a second from the file's bytes to composited RGB pixels, the first second left out."""
    composite = compositor(look)
    with VideoReader(clip) as reader:
        info = reader.info
        frames = finish_frames(
            iter(reader),
            segmenter,
            lambda frame: info.turn(info.color.to_rgb(frame)),
            lambda image_HWC, found_HW: composite(image_HWC, found_HW, segmenter.threshold),
            **options,
        )
        with closing(frames):
            _exhaust(islice(frames, FRAMES_PER_S))
            began_s, cpu_s = time.perf_counter(), time.process_time()
            done = _exhaust(frames)
            return _rate(done, time.perf_counter() - began_s, time.process_time() - cpu_s)


def file_rate(clip: Path, segmenter: Segmenter, result: Path, look: Look, **options: Any) -> dict[str, float]:
    """Frames a second from file to file."""
    cpu_s = time.process_time()
    with VideoReader(clip) as reader:
        outcome = cut_video(
            reader,
            result,
            segmenter,
            compositor(look),
            transparent=look.is_transparent,
            **options,
        )
    return _rate(outcome.frames, outcome.seconds, time.process_time() - cpu_s)


def live_rate(clip: Path, segmenter: Segmenter) -> dict[str, float]:
    """The pace of `carmask live` on the clip, played as a camera of 30 frames a second would give it."""
    with Camera(str(clip)) as camera:
        pace: Pace = watch(camera, segmenter, compositor(LOOKS["overlay"]), lambda *_: None)
        shown = pace.frames
    return {
        "frames_per_s": round(pace.rate, 1),
        "latency_ms": round(pace.latency_ms, 1),
        "shown": shown,
        "dropped": camera.dropped,
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the packaged `fast` when not given")
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
        at_once: dict[str, Any] = {"batch_size": given.batch_size}
        overlay, white, alpha = (LOOKS[name] for name in ("overlay", "cutout white", "cutout transparent"))
        to_composite = partial(composite_rate, clip, segmenter)
        to_file = partial(file_rate, clip, segmenter)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "capture to composite: overlay": partial(to_composite, overlay, **at_once),
            "capture to composite: overlay, one at a time": partial(to_composite, overlay),
            "capture to composite: overlay, smooth": partial(to_composite, overlay, smooth=True, **at_once),
            "capture to composite: cutout white": partial(to_composite, white, **at_once),
            "file to file: overlay, MP4": partial(to_file, folder / "o.mp4", overlay, **at_once),
            "file to file: transparent, WebM": partial(to_file, folder / "o.webm", alpha, **at_once),
        }
        rates = {}
        for name, run in runs.items():
            rates[name] = rate = run()
            print(f"{name:<48} {rate['frames_per_s']:7.1f} frames/s  {rate['cpu_ms']:5.1f} ms of processor time each")
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


def _shared(figures: dict[str, float], among: int) -> dict[str, float]:
    return {name: round(value / among, 2) for name, value in figures.items()}


def _rounded_ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _print(stages: dict[str, dict[str, float]]) -> None:
    for name, figures in stages.items():
        print(f"{name:<48} {figures['ms']:7.2f} ms  {figures['cpu_ms']:7.2f} ms of processor time")


if __name__ == "__main__":
    main()
