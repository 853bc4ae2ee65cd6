"""PyAV, which brings FFmpeg: an extra, because its wheels carry codecs under the GPL. Nothing else needs it."""

from carmask.errors import CarmaskError


class VideoLibraryMissing(CarmaskError):
    """PyAV is not installed."""


class BadVideo(CarmaskError):
    """A file that holds no video that can be decoded."""


class BadVideoOutput(CarmaskError):
    """A video that cannot be written as it was asked for."""


def require_pyav() -> None:
    """Refuse, saying how to install it, where PyAV is missing; called before a module that imports it is."""
    try:
        import av  # noqa: F401 - whether it can be imported is what is asked
    except ImportError as error:
        raise VideoLibraryMissing(
            f"video files need PyAV ({error}); install it with `pip install 'carmask[video]'`"
        ) from error
