"""What hostile files are made of: an ordinary picture, its bytes in any format, PNGs chunk by chunk."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

Content = tuple[str, bytes, bool, str]  # file name, bytes, readable, note


def photo(height: int = 64, width: int = 96, seed: int = 0) -> Image.Image:
    """Return an RGB picture with smooth colors, an edge and noise."""
    y_HW, x_HW = np.mgrid[:height, :width]
    rgb = np.stack([x_HW * 255 / max(width, 1), y_HW * 255 / max(height, 1), 255 * (x_HW > y_HW)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 12, rgb.shape)
    return Image.fromarray(np.clip(rgb + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return the bytes of `image` in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def png_from_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of (kind, data) chunks with right lengths and checksums; IEND is added."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


def plain_pillow_reads(data: bytes) -> bool:
    """Whether Pillow itself reads these bytes, without any code of the project: nobody else can tell after a flip."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")) as image:
            if image.width * image.height > 100_000_000:
                return False
            image.load()
    except Exception:  # noqa: BLE001 - any failure is the answer
        return False
    return True
