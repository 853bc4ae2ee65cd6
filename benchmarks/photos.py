"""The photos of a folder, for all that is measured on some of them."""

from pathlib import Path

from carmask.imaging.decode import IMAGE_SUFFIXES


def photos_in(folder: Path) -> list[Path]:
    """The photos in a folder and below, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
