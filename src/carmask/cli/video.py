"""`carmask video`."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from carmask.cli.console import print_line, print_remark
from carmask.cli.options import BatchSize, Flag, NetworkOptions
from carmask.errors import CarmaskError
from carmask.imaging import Vehicles
from carmask.pipeline.video.codecs import BadVideoOutput, choose_container
from carmask.progress import progress_bar

VideoKind = Literal["overlay", "cutout", "mask", "soft"]

_NETWORK = NetworkOptions()


def video(
    source: Path,
    destination: Path,
    *,
    kind: Annotated[VideoKind | None, Parameter(alias="-k")] = None,
    background: str | None = None,
    smooth: Flag = False,
    vehicles: Vehicles = "all",
    min_area: str = "0",
    audio: bool = True,
    rate: str = "25",
    crf: int | None = None,
    overwrite: Flag = False,
    batch_size: BatchSize = 4,
    network: NetworkOptions = _NETWORK,
) -> int:
    """Cut vehicles out of a video, frame by frame.

    The frames keep their times, rotation, pixel aspect and color coding. The audio is copied if the new container
    supports it. The exit status is 0 on success. It is 2 if the source is damaged; the result then has only the frames
    that can be decoded.

    Args:
        source: A video file; or pictures that are its frames: a folder, or a pattern with a number, frames/%04d.png.
        destination: The result: .mp4, .mov or .mkv (H.264), or .webm (VP9). With transparency .mov (ProRes 4444), .webm
            or .mkv (VP9).
        kind: overlay: the mask laid over the video. cutout: the vehicle on another background. mask: white on black.
            soft: the probability as gray. The default is overlay, or cutout with --background.
        background: For cutout: transparent, a color (white, #00ff00), blur, or the path of a picture, a GIF or a video.
            A GIF or video repeats.
        smooth: Smooth the mask over time, so that edges do not flicker. Moving vehicles leave no trail.
        vehicles: Keep all regions of each mask, only the largest, or only the one in the center, as in `carmask
            predict`.
        min_area: Remove regions of a mask smaller than this: pixels (400), or a share of the picture (0.5%).
        audio: Keep the audio.
        rate: Frames per second, if the source is pictures: 24 or 30000/1001.
        crf: Constant rate factor: 0 to 51 for H.264 (default 18), 0 to 63 for VP9 (default 24). Lower values give
            better and larger videos.
        overwrite: Replace an existing result.
        batch_size: Number of frames in a batch.
        network: Which network, and how it runs.
    """
    # Slow imports happen here, so that --help does not wait for them.
    from carmask.imaging.masks import Area, Regions
    from carmask.pipeline.video.frames import choose_style, is_transparent

    style = choose_style(kind, background)
    check_destination(destination, overwrite=overwrite, source=source, transparent=is_transparent(style))
    from carmask.pipeline.video.frame_files import FrameFiles, is_frame_files
    from carmask.pipeline.video.reader import VideoReader
    from carmask.pipeline.video.segment_video import segment_video

    regions = Regions(vehicles, Area.parse(min_area))
    with FrameFiles(source, _parse_rate(rate)) if is_frame_files(source) else VideoReader(source) as reader:
        segmenter = network.load()
        print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
        with progress_bar("cutting out", unit="frames") as progress:
            summary = segment_video(
                reader,
                destination,
                segmenter,
                style,
                crf=crf,
                audio=audio,
                smooth=smooth,
                regions=regions,
                batch_size=batch_size,
                progress=progress,
            )
    for note in summary.notes:
        print_remark(f"{source}: {note}")
    for damage in summary.damage:
        print_remark(f"{source}: {damage}", warning=True)
    if summary.empty:
        print_line(f"no vehicle found in {summary.empty} of {summary.frames} frames", "yellow")
    frames_per_s = summary.frames / max(summary.seconds, 1e-9)
    print_line(
        f"{summary.frames} frame{'s' * (summary.frames != 1)} written to {destination} "
        f"in {summary.seconds:.1f} s, {frames_per_s:.1f} frames/s"
    )
    return 2 if summary.damage else 0


def _parse_rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise CarmaskError(f"--rate {text}: give frames per second, such as 25 or 30000/1001")
    return rate


def check_destination(
    destination: Path, *, overwrite: bool, source: Path | None = None, transparent: bool = False
) -> None:
    """Check that a video can be written there, before any work is done.

    Raises:
        BadVideoOutput: it is not the name of a video, or something else is there.
    """
    import av  # noqa: F401 - it is an extra, because its wheels contain codecs under the GPL

    choose_container(destination, transparent=transparent)
    if destination.is_dir():
        raise BadVideoOutput(f"{destination}: is a folder; give the name of a video file")
    if not destination.exists():
        return
    if source is not None and source.exists() and destination.samefile(source):
        raise BadVideoOutput(f"{destination}: is the source itself; give another name")
    if not overwrite:
        raise BadVideoOutput(f"{destination}: exists already; give another name, or --overwrite")
