"""A clip of a minute through `carmask video`: the same frames, the same audio, and the masks that photos would get.

    python benchmarks/video_check.py [--model MODEL] [--seconds 60]

The masks of the result are compared with those that the network gives for the clip's decoded frames, one by one.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from carmask.evaluation.metrics import dice
from carmask.segmenter import Segmenter
from record import record
from video_clip import FRAMES_PER_S, SIZE_HW, make_clip

# Compare every tenth mask; that takes as long as the rest.
EVERY = 10
MIN_DICE = 0.998
# Subsampled colors are interpolated. FFmpeg's fast way, repeating them, changes masks by up to 0.006 Dice on this clip.
_WHOLE_COLORS = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class Contents:
    """Times of frames and audio packets, read with PyAV alone."""

    times_s: list[float]
    sound: list[bytes]
    codecs: list[str]


def read(path: Path) -> Contents:
    """Decode all frames, and read all audio packets."""
    times_s, sound = [], []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type == "video":
                times_s += [float(frame.time) for frame in packet.decode()]
            elif packet.size:
                sound.append(bytes(packet))
        return Contents(times_s, sound, [stream.codec_context.name for stream in container.streams])


def compare_masks(clip: Path, result: Path, segmenter: Segmenter) -> list[float]:
    """Dice of the masks in the result against those of the same frames as photos."""
    scores = []
    with av.open(str(clip)) as source, av.open(str(result)) as made:
        pairs = zip(source.decode(video=0), made.decode(video=0), strict=True)
        for frame, mask in islice(pairs, 0, None, EVERY):
            pixels = frame.reformat(format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=_WHOLE_COLORS)
            wanted_HW = segmenter(pixels.to_ndarray()).mask
            scores.append(dice(wanted_HW, mask.to_ndarray(format="gray") >= 128))
    return scores


def check(folder: Path, model: str | None, seconds: float) -> dict[str, Any]:
    """Make the clip, run the command as a user would, and compare."""
    clip, result = folder / "clip.mp4", folder / "mask.mp4"
    frames = make_clip(clip, seconds)
    options = ["--model", model] if model else []
    command = [sys.executable, "-m", "carmask", "video", str(clip), str(result), "--kind", "mask", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="")
    if done.returncode != 0:
        sys.exit(f"the command failed with status {done.returncode}")
    before, after = read(clip), read(result)
    segmenter = Segmenter.load(model)
    scores = compare_masks(clip, result, segmenter)
    return {
        "clip": {"seconds": seconds, "size_HW": SIZE_HW, "frames_per_s": FRAMES_PER_S, "codecs": before.codecs},
        "network": segmenter.describe(),
        "said": done.stdout.strip().splitlines()[-1].replace(str(result), result.name),
        "frames_made": frames,
        "frames_in": len(before.times_s),
        "frames_out": len(after.times_s),
        "same_times": before.times_s == after.times_s,
        "sound_packets_in": len(before.sound),
        "sound_packets_out": len(after.sound),
        "same_sound_packets": before.sound == after.sound,
        "masks_compared": len(scores),
        "mean_dice": round(float(np.mean(scores)), 5),
        "worst_dice": round(min(scores), 5),
    }


def main() -> None:
    """Check, print, record, and exit with an error if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the packaged `general`")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = check(Path(folder), given.model, given.seconds)
    for name, value in figures.items():
        print(f"{name:<20} {value}")
    record("video_check", figures)
    counts_agree = figures["frames_made"] == figures["frames_in"] == figures["frames_out"]
    is_same = figures["same_times"] and figures["same_sound_packets"] and figures["sound_packets_in"] > 0
    if not (counts_agree and is_same and figures["worst_dice"] >= MIN_DICE):
        sys.exit("the result differs from what it must be")


if __name__ == "__main__":
    main()
