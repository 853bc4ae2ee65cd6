"""`carmask video`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from carmask.cli.console import print_line, print_remark, progress_bar
from carmask.cli.network import NetworkOptions
from carmask.cli.options import BatchSize, Flag
from carmask.pipeline.video.coding import check_ending
from carmask.pipeline.video.kinds import VideoKind, choose_look
from carmask.pipeline.video.pyav import BadVideoOutput, require_pyav

if TYPE_CHECKING:
    from carmask.pipeline.video.run import Outcome

_NETWORK = NetworkOptions()


def video(
    source: Path,
    destination: Path,
    *,
    kind: Annotated[VideoKind | None, Parameter(alias="-k")] = None,
    background: str | None = None,
    smooth: Flag = False,
    keep_largest: Flag = False,
    min_area: str = "0",
    audio: bool = True,
    crf: int | None = None,
    overwrite: Flag = False,
    batch_size: BatchSize = 4,
    network: NetworkOptions = _NETWORK,
) -> int:
    """Cut vehicles out of a video, frame by frame.

    Frames, their times, the way up, the shape of pixels and the coding of colors stay as they are, and so does the
    sound, which is copied where the result can hold it. Exit status 0 when all went well, 2 when the source is damaged
    and only what could be decoded was cut out.

    Args:
        source: A video file.
        destination: The result: .mp4, .mov or .mkv (H.264), or .webm (VP9). With transparency .mov (ProRes 4444), .webm
            or .mkv (VP9).
        kind: overlay: the mask laid over the video. cutout: the vehicle on another ground. mask: white on black. soft:
            the probability as gray. Overlay when not given, or cutout with a background.
        background: Of a cutout: transparent, a color (white, #00ff00), blur, or the path of a picture.
        smooth: Smooth over time, so that edges do not flicker; what moves leaves no trail.
        keep_largest: Of a mask in several parts only the largest is kept.
        min_area: Smaller parts of a mask are dropped: pixels (400), or a share of the picture (0.5%).
        audio: Take the sound over.
        crf: Constant rate factor, less is better and larger: 0 to 51 for H.264 (18 when not given), 0 to 63 for VP9
            (24).
        overwrite: Replace a result that is there.
        batch_size: Frames that pass through the network together.
        network: Which network, and how it runs.

    """
    look = choose_look(kind, background)
    check_result(destination, overwrite=overwrite, source=source, transparent=look.is_transparent)
    # All that takes time to import is imported here, so that --help does not wait for it.
    from carmask.pipeline.regions import Area, Regions
    from carmask.pipeline.video.look import compositor
    from carmask.pipeline.video.reader import VideoReader
    from carmask.pipeline.video.run import cut_video

    regions = Regions(keep_largest, Area.parse(min_area))
    composite = compositor(look)
    with VideoReader(source) as reader:
        segmenter = network.load()
        print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
        with progress_bar("cutting out", unit="frames") as advance:
            outcome = cut_video(
                reader,
                destination,
                segmenter,
                composite,
                transparent=look.is_transparent,
                crf=crf,
                audio=audio,
                smooth=smooth,
                regions=regions,
                batch_size=batch_size,
                progress=advance,
            )
    _print_outcome(source, destination, outcome)
    return 2 if outcome.damage else 0


def _print_outcome(source: Path, destination: Path, outcome: "Outcome") -> None:
    for remark in outcome.remarks:
        print_remark(f"{source}: {remark}")
    for damage in outcome.damage:
        print_remark(f"{source}: {damage}", warning=True)
    if outcome.empty:
        print_line(f"no vehicle found in {outcome.empty} of {outcome.frames} frames", "yellow")
    rate = outcome.frames / max(outcome.seconds, 1e-9)
    print_line(
        f"{outcome.frames} frame{'s' * (outcome.frames != 1)} written to {destination} "
        f"in {outcome.seconds:.1f} s, {rate:.1f} frames/s"
    )


def check_result(destination: Path, *, overwrite: bool, source: Path | None = None, transparent: bool = False) -> None:
    """Refuse, before anything is done, what no video can be written to.

    Raises:
        VideoLibraryMissing: PyAV is not installed.
        BadVideoOutput: the name is no video's, or there is something else.

    """
    require_pyav()
    check_ending(destination, transparent=transparent)
    try:
        if destination.is_dir():
            raise BadVideoOutput(f"{destination}: is a folder; give the name of a video file")
        if not destination.exists():
            return
        if source is not None and source.exists() and destination.samefile(source):
            raise BadVideoOutput(f"{destination}: is the source itself; give another name")
    except OSError as error:
        raise BadVideoOutput(f"{destination}: cannot be used ({error.strerror}); give another name") from error
    if not overwrite:
        raise BadVideoOutput(f"{destination}: is there already; give another name, or --overwrite")
