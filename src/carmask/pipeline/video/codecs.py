"""Which container, codec and pixel format a video is written in, and what can go wrong with videos. Imports no PyAV."""

from dataclasses import dataclass, field
from pathlib import Path

from carmask.errors import CarmaskError

# FFmpeg's container name for each file suffix.
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


class BadVideo(CarmaskError):
    """A file without a video that can be decoded."""


class BadVideoOutput(CarmaskError):
    """A video cannot be written with this name or these options."""


@dataclass(frozen=True)
class Encoding:
    """Container, video codec and pixel format by FFmpeg's names, their options, and the codec for re-encoded audio."""

    container: str
    codec: str
    pixel_format: str
    options: dict[str, str]
    container_options: dict[str, str] = field(default_factory=dict)
    audio_codec: str = "aac"


def choose_encoding(path: Path, size_HW: tuple[int, int], *, transparent: bool, crf: int | None = None) -> Encoding:
    """Choose how to encode a video by its file name, size and transparency.

    H.264 for .mp4, .mov and .mkv, VP9 for .webm; with transparency ProRes 4444 for .mov and VP9 for .webm and .mkv.
    4:2:0 needs even sides, so H.264 uses 4:4:4 where a side is odd.

    crf: constant rate factor, lower is better: 0..51 for H.264 (default 18), 0..63 for VP9 (default 24).

    Raises:
        BadVideoOutput: the suffix is unknown, or the container cannot hold transparency or take this `crf`.
    """
    container = choose_container(path, transparent=transparent)
    if transparent and container == "mov":
        if crf is not None:
            raise BadVideoOutput(f"{path}: ProRes 4444 has no --crf; leave it out")
        options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
        return Encoding(container, "prores_ks", "yuva444p10le", options)
    if transparent or container == "webm":
        options = {
            "crf": _checked_crf(path, crf, default=24, highest=63),
            "b": "0",
            "deadline": "realtime",
            "cpu-used": "6",
            "row-mt": "1",
        }
        if transparent:
            options["auto-alt-ref"] = "0"  # libvpx rejects transparency with alternate reference frames
        audio = "libopus" if container == "webm" else "aac"
        return Encoding(container, "libvpx-vp9", "yuva420p" if transparent else "yuv420p", options, audio_codec=audio)
    is_even = size_HW[0] % 2 == 0 and size_HW[1] % 2 == 0
    return Encoding(
        container,
        "libx264",
        "yuv420p" if is_even else "yuv444p",
        # Without B-frames, frames are written in display order. With them, a variable frame rate would give the file a
        # wrong duration.
        {"preset": "veryfast", "bf": "0", "crf": _checked_crf(path, crf, default=18, highest=51)},
        # The index goes to the front, so that a browser can start playing before it has the whole file.
        {"movflags": "+faststart"} if container in ("mp4", "mov") else {},
    )


def choose_container(path: Path, *, transparent: bool) -> str:
    """Return FFmpeg's container name for a file name.

    Raises:
        BadVideoOutput: the suffix is unknown, or the container cannot hold transparency.
    """
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise BadVideoOutput(f"{path}: is not the name of a video; use one of {', '.join(_CONTAINERS)}")
    if transparent and container == "mp4":
        raise BadVideoOutput(
            f"{path}: MP4 has no transparency; use .mov (ProRes 4444, for editing) or .webm (VP9, for browsers), "
            "or another --background, such as white"
        )
    return container


def _checked_crf(path: Path, crf: int | None, *, default: int, highest: int) -> str:
    if crf is None:
        return str(default)
    if not 0 <= crf <= highest:
        raise BadVideoOutput(f"{path}: --crf {crf} is out of range; use 0 (best) to {highest} (smallest)")
    return str(crf)
