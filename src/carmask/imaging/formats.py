"""Formats of pictures: which file names and first bytes mean which format, and the reader of each.

All readers are subclasses of Pillow's `ImageFile` and read only the header until they load. Orientation, color profile
and alpha come out of them as Pillow's own readers give them.
"""

import re
from collections.abc import Callable, Mapping
from typing import IO

from PIL import ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from carmask.imaging.iso_media import open_avif, open_heif
from carmask.imaging.readers import BmpFile, Jpeg2000File, TargaFile, TiffFile, WebpFile

_READ = (
    ".jpg .jpeg .jpe .jfif .mpo .png .gif .bmp .tif .tiff .webp .heic .heif .hif .avif .jp2 .j2k .jpx .jpf .j2c .jpc "
    ".pnm .ppm .pgm .pbm .tga"
)
_RAW_PHOTOS = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".rwl .sr2 .srf .srw .x3f"
)
_OTHER_PICTURES = ".ai .dds .eps .exr .hdr .ico .jxl .jxr .pcx .pfm .psb .psd .svg .svgz .xcf"
IMAGE_SUFFIXES = frozenset(_READ.split())
RAW_SUFFIXES = frozenset(_RAW_PHOTOS.split())
# Of pictures that are not read.
OTHER_PICTURE_SUFFIXES = frozenset(_OTHER_PICTURES.split())

FORMATS = "JPEG, PNG, GIF, BMP, TIFF, WebP, HEIC, AVIF, JPEG 2000, PNM or TGA"
_SHOWN_ENDINGS = 5

POINTER = "a pointer of Git LFS or git-annex, and the picture was not fetched"
RAW = "a camera's RAW photo"
JPEG_XL = "a JPEG XL file"

_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_HEIF_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

# Bits per pixel of a TGA, by its image type: with a palette, in colors, in grays; compressed ones have 8 more.
_TGA_DEPTHS = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16)}


def _brands(head: bytes) -> set[bytes]:
    """Brands of an ISO media file (ISO/IEC 14496-12, 4.3): what readers it was made for."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(len(head), int.from_bytes(head[:4], "big"))
    return {head[start : start + 4] for start in (8, *range(16, end, 4))}


def _is_avif(head: bytes) -> bool:
    return bool(_brands(head) & _AVIF_BRANDS) and head[8:12] not in _HEVC_BRANDS


def _is_heif(head: bytes) -> bool:
    return bool(_brands(head) & (_HEVC_BRANDS | _HEIF_BRANDS)) and not _is_avif(head)


def _is_targa(head: bytes) -> bool:
    """Whether it begins like a TGA, which has no signature: every field must have one of the few values allowed."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    kind, has_palette = head[2] & 7, head[1] == 1
    if has_palette != (kind == 1) or (head[7] not in (16, 24, 32) if has_palette else any(head[3:8])):
        return False
    return head[16] in _TGA_DEPTHS[kind] and not head[17] & 0xC0 and any(head[12:14]) and any(head[14:16])


# By a file's first bytes. Image.open would apply Pillow's own pixel limit, which warns from 89 and refuses from 179
# megapixels and can only be changed for the whole process; the limit here is the caller's. A phone's multi-picture JPEG
# (MPO) is read as a JPEG, of which the first picture is the photo.
_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[IO[bytes]], ImageFile.ImageFile]], ...] = (
    (lambda head: head.startswith(b"\xff\xd8\xff"), JpegImageFile),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), PngImageFile),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), GifImageFile),
    (lambda head: head.startswith(b"BM"), BmpFile),
    (lambda head: head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and head[8:10] != b"CR", TiffFile),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", WebpFile),
    (_is_avif, open_avif),
    (_is_heif, open_heif),
    (lambda head: head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")), Jpeg2000File),
    (lambda head: re.match(rb"P[1-6][\s#]", head) is not None, PpmImageFile),
    (_is_targa, TargaFile),
)

_OTHER_KINDS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda head: head.startswith(b"version https://git-lfs") or b"/annex/objects/" in head, POINTER),
    (
        lambda head: (
            head[8:10] == b"CR"
            or b"crx " in _brands(head)
            or head.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"))
            or head[6:14] == b"HEAPCCDR"
        ),
        RAW,
    ),
    (lambda head: head.startswith(b"%PDF"), "a PDF document"),
    (lambda head: head.startswith(b"PK\x03\x04"), "a ZIP archive"),
    (lambda head: head.startswith(b"8BPS"), "a Photoshop file"),
    (lambda head: head[4:8] == b"ftyp", "a video or sound (MP4 or MOV)"),
    (lambda head: head.startswith(b"\xff\x0a") or head[4:8] == b"JXL ", JPEG_XL),
    (lambda head: b"<svg" in head.lower(), "an SVG drawing"),
    (lambda head: head.lstrip().lower().startswith((b"<!doctype html", b"<html")), "an HTML page"),
    (lambda head: not head.strip(b"\0"), "nothing but zero bytes"),
    (lambda head: all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head), "text"),
)


def find_reader(head: bytes) -> Callable[[IO[bytes]], ImageFile.ImageFile] | None:
    """Return what opens a file that begins with these bytes (256, or the whole file), None if nothing does."""
    return next((reader for recognizes, reader in _READERS if recognizes(head)), None)


def name_data(head: bytes) -> str:
    """Say what a file that no reader opens is, by its first bytes."""
    return next((what for recognizes, what in _OTHER_KINDS if recognizes(head)), "an unknown kind of data")


def is_raw(image: TiffImageFile) -> bool:
    """Whether a TIFF is a RAW photo, whose first picture is a thumbnail (TIFF/EP) or says so (DNG).

    Pillow would read the thumbnail.
    """
    tags = image.tag_v2
    return 50706 in tags or (330 in tags and bool(int(tags.get(254, 0)) & 1))


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Say how many files were left out, by the endings of their names in lower case.

    Such as: 12 files that are not photos (9 .json, 3 .txt), 2 RAW photos (2 .cr3; export JPEGs of them).
    """
    raw = {ending: count for ending, count in left_out.items() if ending in RAW_SUFFIXES}
    pictures = {ending: count for ending, count in left_out.items() if ending in OTHER_PICTURE_SUFFIXES}
    others = {ending: count for ending, count in left_out.items() if ending not in raw | pictures}
    parts = (
        _count(others, "file that is not a photo", "files that are not photos"),
        _count(raw, "RAW photo", "RAW photos", "; export JPEGs of them"),
        _count(pictures, "picture of a kind that is not read", "pictures of kinds that are not read", "; convert them"),
    )
    return ", ".join(part for part in parts if part)


def _count(count_of: Mapping[str, int], one: str, many: str, advice: str = "") -> str:
    if not count_of:
        return ""
    most = sorted(count_of, key=lambda ending: (-count_of[ending], ending))
    named = [f"{count_of[ending]} {ending or 'without an ending'}" for ending in most[:_SHOWN_ENDINGS]]
    if rest := sum(count_of[ending] for ending in most[_SHOWN_ENDINGS:]):
        named.append(f"{rest} others")
    total = sum(count_of.values())
    return f"{total} {many if total > 1 else one} ({', '.join(named)}{advice})"
