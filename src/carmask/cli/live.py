"""`carmask live`."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from carmask.cli.console import print_line, print_remark
from carmask.cli.network import NetworkOptions
from carmask.cli.options import Flag
from carmask.cli.video import check_result
from carmask.errors import CarmaskError
from carmask.pipeline.video.kinds import Look, VideoKind, choose_look

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from carmask.pipeline.video.camera import Camera
    from carmask.pipeline.video.live import Pace
    from carmask.pipeline.video.window import Window
    from carmask.pipeline.video.writer import VideoWriter

_NETWORK = NetworkOptions()
_POLL_S = 0.003
_REPORT_EVERY_S = 1.0


def live(
    source: str = "0",
    *,
    kind: Annotated[VideoKind | None, Parameter(alias="-k")] = None,
    background: str | None = None,
    smooth: Flag = False,
    keep_largest: Flag = False,
    min_area: str = "0",
    height_px: int | None = None,
    width_px: int | None = None,
    frames: int | None = None,
    window: bool | None = None,
    record: Path | None = None,
    overwrite: Flag = False,
    network: NetworkOptions = _NETWORK,
) -> None:
    """Show what a camera sees with the vehicle cut out, and how many frames a second that are.

    Frames that come while others are at work are dropped, so that what is shown is never old. Ends with the source,
    when the window is closed (or Escape or q pressed in it), and with Ctrl-C.

    Args:
        source: A camera (0, 1, /dev/video0), a stream (rtsp://, http://), or a video file, read at its own pace.
        kind: overlay: the mask laid over the picture. cutout: the vehicle on another ground. mask: white on black.
            soft: the probability as gray. Overlay when not given, or cutout with a background.
        background: Of a cutout: a color (white, #00ff00), blur, or the path of a picture.
        smooth: Smooth over time, so that edges do not flicker; what moves leaves no trail.
        keep_largest: Of a mask in several parts only the largest is kept.
        min_area: Smaller parts of a mask are dropped: pixels (400), or a share of the picture (0.5%).
        height_px: Height to ask of a camera, with --width-px.
        width_px: Width to ask of a camera, with --height-px.
        frames: Stop after so many.
        window: Show a window. Where none can be opened and it is not asked for, frames a second are printed alone.
        record: A video file for the results, as `carmask video` writes them; it has no sound.
        overwrite: Replace a recording that is there.
        network: Which network, and how it runs.

    """
    # All that takes time to import is imported here, so that --help does not wait for it.
    from carmask.pipeline.regions import Area, Regions
    from carmask.pipeline.video.camera import Camera
    from carmask.pipeline.video.live import watch
    from carmask.pipeline.video.look import compositor

    look = choose_look(kind, background)
    size_HW = _check(look, height_px, width_px, frames)
    if record is not None:
        check_result(record, overwrite=overwrite)
    regions = Regions(keep_largest, Area.parse(min_area))
    composite = compositor(look)
    segmenter = network.load()
    newest: deque[tuple[NDArray[np.uint8], Pace]] = deque(maxlen=1)
    with ExitStack() as stack:
        camera = stack.enter_context(Camera(source, size_HW=size_HW))
        screen = _open_window(f"carmask: {source}", camera.size_HW, asked=window) if window is not False else None
        if screen is not None:
            stack.callback(screen.close)
        writer = stack.enter_context(_recorder(record, camera.size_HW)) if record is not None else None
        print_line(f"{segmenter.name}: {segmenter.describe_engine()}")
        watching = stack.enter_context(ThreadPoolExecutor(1)).submit(
            watch,
            camera,
            segmenter,
            composite,
            lambda *shown: newest.append(shown),
            smooth=smooth,
            regions=regions,
            frames=frames,
            record=writer,
        )
        try:
            _follow(watching, camera, newest, screen)
        except KeyboardInterrupt:
            print_remark("stopping")
        finally:
            camera.stop()
        pace = watching.result()
    height, width = camera.size_HW
    print_line(
        f"{pace.frames} frames of {width} x {height} px shown, {pace}; {camera.dropped} of {camera.taken} were dropped"
    )


def _follow(
    watching: "Future[Pace]", camera: "Camera", newest: "deque[tuple[NDArray[np.uint8], Pace]]", window: "Window | None"
) -> None:
    """Show what is newest, in the window or as a line each second, until all is done."""
    reported_s = time.perf_counter()
    while not watching.done():
        if window is not None:
            window.update()
            if not window.is_open:
                camera.stop()
        if newest:
            image_HWC, pace = newest.pop()
            if window is not None:
                window.show(image_HWC, str(pace))
            elif time.perf_counter() - reported_s >= _REPORT_EVERY_S:
                reported_s = time.perf_counter()
                print_remark(str(pace))
        time.sleep(_POLL_S)


def _open_window(title: str, size_HW: tuple[int, int], *, asked: bool | None) -> "Window | None":
    from carmask.pipeline.video.window import NoWindow, Window

    try:
        return Window(title, size_HW)
    except NoWindow as error:
        if asked:
            raise
        print_remark(str(error), warning=True)
        return None


def _recorder(path: Path, size_HW: tuple[int, int]) -> "AbstractContextManager[VideoWriter]":
    from carmask.pipeline.video.coding import choose_coding
    from carmask.pipeline.video.picture import Color
    from carmask.pipeline.video.reader import VideoInfo
    from carmask.pipeline.video.writer import written_video

    # Frames come when they come: the rate is only what the codec reckons with.
    info = VideoInfo(size_HW, Fraction(30), Fraction(1, 1000), Color.usual(size_HW[0]))
    return written_video(path, info, choose_coding(path, size_HW, transparent=False))


def _check(look: Look, height_px: int | None, width_px: int | None, frames: int | None) -> tuple[int, int] | None:
    """The size to ask of a camera, where one is given."""
    if look.is_transparent:
        raise CarmaskError("what is live is shown on a ground; give --background with a color, blur or a picture")
    if frames is not None and frames < 1:
        raise CarmaskError(f"--frames {frames}: give 1 or more")
    if height_px is None and width_px is None:
        return None
    if not height_px or not width_px or height_px < 1 or width_px < 1:
        raise CarmaskError("--height-px and --width-px go together, and are 1 or more")
    return height_px, width_px
