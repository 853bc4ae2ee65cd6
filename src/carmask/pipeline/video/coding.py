"""By which codec and pixel format a video is written, from the ending of its name and what it shows."""

from dataclasses import dataclass, field
from pathlib import Path

from carmask.pipeline.video.pyav import BadVideoOutput

# FFmpeg's name of the container by the ending of the file's name.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


@dataclass(frozen=True)
class Coding:
    """Container, video codec and pixel format by FFmpeg's names, the codec's options and the audio it falls back to."""

    container: str
    codec: str
    pixel_format: str
    options: dict[str, str]
    container_options: dict[str, str] = field(default_factory=dict)
    audio_codec: str = "aac"

    @property
    def has_alpha(self) -> bool:
        """Whether frames have transparency."""
        return self.pixel_format.startswith("yuva")


def choose_coding(path: Path, size_HW: tuple[int, int], *, transparent: bool, crf: int | None = None) -> Coding:
    """Choose how to write a video of this name and size.

    H.264 for .mp4, .mov and .mkv, VP9 for .webm; with transparency ProRes 4444 for .mov and VP9 for .webm and .mkv.
    Sides that are odd cannot have their colors halved, so H.264 then keeps them whole (4:4:4).

    Args:
        path: Where the video goes.
        size_HW: Height and width in pixels.
        transparent: Whether there is an alpha channel.
        crf: Constant rate factor, less is better: 0..51 for H.264 (18 when not given), 0..63 for VP9 (24).

    Raises:
        BadVideoOutput: there is no such container, or not with transparency, or not with this `crf`.

    """
    container = check_ending(path, transparent=transparent)
    if transparent and container == "mov":
        if crf is not None:
            raise BadVideoOutput(f"{path}: ProRes 4444 takes no --crf; leave it out")
        options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
        return Coding(container, "prores_ks", "yuva444p10le", options)
    if transparent or container == "webm":
        options = {"crf": _crf(path, crf, 24, 63), "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
        if transparent:
            options["auto-alt-ref"] = "0"  # libvpx refuses transparency with it
        audio = "libopus" if container == "webm" else "aac"
        return Coding(container, "libvpx-vp9", "yuva420p" if transparent else "yuv420p", options, audio_codec=audio)
    is_even = size_HW[0] % 2 == 0 and size_HW[1] % 2 == 0
    return Coding(
        container,
        "libx264",
        "yuv420p" if is_even else "yuv444p",
        # Without B-frames every frame is written in the order in which it is shown: with uneven times between them the
        # container would else give a wrong duration.
        {"preset": "veryfast", "bf": "0", "crf": _crf(path, crf, 18, 51)},
        # The index goes to the front, so that a browser can show the beginning before it has the end.
        {"movflags": "+faststart"} if container in ("mp4", "mov") else {},
    )


def check_ending(path: Path, *, transparent: bool) -> str:
    """FFmpeg's name of the container that a file's name asks for.

    Raises:
        BadVideoOutput: there is no such container, or it has no transparency.

    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise BadVideoOutput(
            f"{path}: videos are written as {', '.join(CONTAINERS)}; give a name with one of these endings"
        )
    if transparent and container == "mp4":
        raise BadVideoOutput(
            f"{path}: MP4 has no transparency; name a .mov (ProRes 4444, for editing) or a .webm (VP9, for browsers), "
            "or another --background, such as white"
        )
    return container


def _crf(path: Path, given: int | None, usual: int, most: int) -> str:
    if given is None:
        return str(usual)
    if not 0 <= given <= most:
        raise BadVideoOutput(f"{path}: --crf {given}; give 0 (best) to {most} (smallest)")
    return str(given)
