"""`carmask live`."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from carmask.cli.console import print_line, print_remark
from carmask.cli.options import Flag, NetworkOptions
from carmask.cli.video import VideoKind, check_destination
from carmask.errors import CarmaskError
from carmask.imaging import Vehicles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from carmask.pipeline.video.live import Camera, LiveMeter, PreviewWindow

Count = Annotated[int | None, Parameter(validator=Number(gte=1))]

_NETWORK = NetworkOptions()
_POLL_S = 0.003
_REPORT_EVERY_S = 1.0


def live(
    source: str = "0",
    *,
    kind: Annotated[VideoKind | None, Parameter(alias="-k")] = None,
    background: str | None = None,
    smooth: Flag = False,
    vehicles: Vehicles = "all",
    min_area: str = "0",
    height_px: Count = None,
    width_px: Count = None,
    frames: Count = None,
    window: bool | None = None,
    record: Path | None = None,
    overwrite: Flag = False,
    network: NetworkOptions = _NETWORK,
) -> None:
    """Show what a camera sees with the vehicles cut out, and the frame rate.

    Frames that arrive while another one is processed are dropped, so that the picture has no lag. The command ends when
    the source ends, when you close the window or press Escape or q in it, or with Ctrl-C.

    Args:
        source: A camera (0, 1, /dev/video0), a stream (rtsp://, http://), or a video file, read at its own frame rate.
        kind: overlay: the mask laid over the picture. cutout: the vehicle on another background. mask: white on black.
            soft: the probability as gray. The default is overlay, or cutout with --background.
        background: For cutout: a color (white, #00ff00), blur, or the path of a picture.
        smooth: Smooth the mask over time, so that edges do not flicker. Moving vehicles leave no trail.
        vehicles: Keep all regions of each mask, only the largest, or only the one in the center, as in `carmask
            predict`.
        min_area: Remove regions of a mask smaller than this: pixels (400), or a share of the picture (0.5%).
        height_px: Height to request from a camera, with --width-px.
        width_px: Width to request from a camera, with --height-px.
        frames: Stop after this number of frames.
        window: Show a window. By default, if no window can be opened, only the frame rate is printed.
        record: A video file to write the results to, as in `carmask video`; it has no audio.
        overwrite: Replace an existing recording.
        network: Which network, and how it runs.
    """
    # Slow imports happen here, so that --help does not wait for them.
    from carmask.imaging.masks import Area, Regions
    from carmask.pipeline.render import draw, load_background
    from carmask.pipeline.video.frames import choose_style, is_transparent, segment_frames
    from carmask.pipeline.video.live import Camera, show_live

    style = choose_style(kind, background)
    if is_transparent(style):
        raise CarmaskError("a window cannot show transparency; give --background with a color, blur or a picture")
    if (height_px is None) != (width_px is None):
        raise CarmaskError("--height-px and --width-px: give both")
    size_HW = None if height_px is None or width_px is None else (height_px, width_px)
    if record is not None:
        check_destination(record, overwrite=overwrite, source=Path(source))
    regions = Regions(vehicles, Area.parse(min_area))
    ground = load_background(style)
    segmenter = network.load()
    newest: deque[tuple[NDArray[np.uint8], str]] = deque(maxlen=1)
    with ExitStack() as stack:
        camera = stack.enter_context(Camera(source, size_HW=size_HW))
        screen = _open_window(f"carmask: {source}", camera.size_HW, required=window) if window is not False else None
        if screen is not None:
            stack.callback(screen.close)
        writer = None
        if record is not None:
            from carmask.pipeline.video.writer import open_recorder

            writer = stack.enter_context(open_recorder(record, camera.size_HW))
        print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
        segmented = segment_frames(
            islice(camera, frames),
            segmenter,
            lambda frame: frame[0],
            lambda _, image_HWC, found: draw(style, image_HWC, found, ground),
            regions=regions,
            smooth=smooth,
            ahead=1,
        )
        thread = stack.enter_context(ThreadPoolExecutor(1))
        showing = thread.submit(show_live, segmented, lambda *result: newest.append(result), writer)
        try:
            _show_until_done(showing, camera, newest, screen)
        except KeyboardInterrupt:
            print_remark("stopping")
        finally:
            camera.stop()
        session = showing.result()
    height, width = camera.size_HW
    print_line(
        f"{session.frames} frames of {width} x {height} px shown, {session}; "
        f"{camera.dropped} of {camera.captured} were dropped"
    )


def _show_until_done(
    showing: "Future[LiveMeter]",
    camera: "Camera",
    newest: "deque[tuple[NDArray[np.uint8], str]]",
    window: "PreviewWindow | None",
) -> None:
    """Show the newest result in the window, or print a line every second."""
    reported_s = time.perf_counter()
    while not showing.done():
        if window is not None:
            window.update()
            if not window.is_open:
                camera.stop()
        if newest:
            image_HWC, text = newest.pop()
            if window is not None:
                window.show(image_HWC, text)
            elif time.perf_counter() - reported_s >= _REPORT_EVERY_S:
                reported_s = time.perf_counter()
                print_remark(text)
        time.sleep(_POLL_S)


def _open_window(title: str, size_HW: tuple[int, int], *, required: bool | None) -> "PreviewWindow | None":
    from carmask.pipeline.video.live import NoWindow, PreviewWindow

    try:
        return PreviewWindow(title, size_HW)
    except NoWindow as error:
        if required:
            raise
        print_remark(str(error), warning=True)
        return None
