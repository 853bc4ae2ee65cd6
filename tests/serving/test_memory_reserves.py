"""The memory that photos take, measured in a process of its own, and what the service reserves for them."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carmask.imaging.decode import decoding_bytes
from carmask.imaging.look import Look
from carmask.serving.memory import FOUND_BYTES_PER_PX, drawing_bytes

SIZE_HW = (1400, 1500)
PIXELS = SIZE_HW[0] * SIZE_HW[1]
# Of buffers that do not grow with the picture.
FIXED_BYTES = 3_000_000

# Calls each function with a small file, which loads libraries, and then measures it with a large one.
MEASURE = r"""
import json, re, sys
from pathlib import Path
import cv2
import numpy as np
from carmask.imaging.decode import decode_photo, read_size
from carmask.imaging.look import Look
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OutputStyle
from carmask.pipeline.render import make_render
from carmask.result import Result

def status_bytes(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def draw(kind, look, data):
    height, width = read_size(data)
    unsure = np.random.default_rng(0).random((20, 30), np.float32)
    found = Result(cv2.resize(unsure, (width, height), interpolation=cv2.INTER_LINEAR), 0.5)
    render = make_render(OutputStyle(kind, Look(**look)), Path(), of_one=True)
    render(Job(0, "photo", Path("photo"), data, Path("photo"), ""), found)

cv2.setNumThreads(1)
peaks = {}
drawn = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    kind, look = drawn.get(name, ("decode", {}))
    call = decode_photo if kind == "decode" else lambda data: draw(kind, look, data)
    small, large = (Path(size, name).read_bytes() for size in ("small", "large"))
    call(small)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    call(large)
    peaks[name] = status_bytes("VmHWM") - before
print(json.dumps(peaks))
"""


def picture(size_HW: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    return cv2.resize(coarse, size_HW[::-1], interpolation=cv2.INTER_LINEAR)


def by_pillow(mode: str, image_format: str, **options: Any) -> Any:
    def encode(size_HW: tuple[int, int]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture(size_HW, len(mode))).save(buffer, image_format, **options)
        return buffer.getvalue()

    return encode


def tiff_of(dtype: Any, channels: int = 3) -> Any:
    def encode(size_HW: tuple[int, int]) -> bytes:
        return cv2.imencode(".tif", (picture(size_HW, channels) / 255).astype(dtype))[1].tobytes()

    return encode


TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "decode-jpeg": by_pillow("RGB", "JPEG"),
    "decode-png-turned": by_pillow("RGBA", "PNG", exif=TURNED),
    "decode-webp": by_pillow("RGBA", "WEBP", method=0, exif=TURNED),
    "decode-webp-lossless": by_pillow("RGBA", "WEBP", lossless=True, method=0, quality=0),
    "decode-avif": by_pillow("RGBA", "AVIF", speed=10),
    "decode-jpeg2000": by_pillow("RGBA", "JPEG2000"),
    "decode-float-tiff": tiff_of(np.float32),
    "decode-double-tiff": tiff_of(np.float64),
    "decode-gray-double-tiff": tiff_of(np.float64, 1),
    "decode-float-alpha-tiff": tiff_of(np.float32, 4),
    "decode-double-alpha-tiff": tiff_of(np.float64, 4),
}
CANVAS = f"{SIZE_HW[1]}x{SIZE_HW[0]}"
# The name of a kind and its look. A background picture is as large as the photo.
DRAWN: dict[str, tuple[str, dict[str, str]]] = {
    "cutout-avif": ("cutout", {"format": "avif"}),
    "cutout-avif-picture": ("cutout", {"format": "avif", "background": "large/decode-jpeg"}),
    "cutout-avif-canvas": ("cutout", {"format": "avif", "background": "studio", "canvas": CANVAS}),
    "cutout-webp-shadow": ("cutout", {"format": "webp", "shadow": "soft", "canvas": CANVAS}),
    "cutout-png-picture": ("cutout", {"format": "png", "background": "large/decode-jpeg"}),
    "cutout-png-small": (
        "cutout",
        {"format": "png", "background": "white", "shadow": "original", "canvas": "150x140"},
    ),
    "cutout-tiff-blur": ("cutout", {"format": "tiff", "background": "blur"}),
    "overlay-avif": ("overlay", {"format": "avif"}),
    "overlay-jpg": ("overlay", {"format": "jpg"}),
    "compare-avif": ("compare", {"format": "avif"}),
    "compare-webp": ("compare", {"format": "webp"}),
    "compare-png": ("compare", {"format": "png"}),
}
FILES |= dict.fromkeys(DRAWN, by_pillow("RGB", "JPEG"))


def reserved_bytes(name: str, data: bytes) -> int:
    decoding = decoding_bytes(data)
    if name not in DRAWN:
        return decoding
    kind, settings = DRAWN[name]
    look = Look(**settings)
    canvas_px = math.prod(look.canvas_HW or (0,))
    background_px = PIXELS if look.background.startswith("large/") else 0
    drawing = drawing_bytes(kind, look.format, PIXELS, canvas_px=canvas_px, background_px=background_px)
    return max(drawing, decoding + FOUND_BYTES_PER_PX * PIXELS)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux reports it")
def test_photos_take_no_more_than_is_reserved(tmp_path: Path) -> None:
    for size, size_HW in (("small", (140, 150)), ("large", SIZE_HW)):
        (tmp_path / size).mkdir()
        for name, encode in FILES.items():
            (tmp_path / size / name).write_bytes(encode(size_HW))
    # Large arrays are given back at once then, and those before do not hide what is taken.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURE, json.dumps(DRAWN), *FILES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, peak_bytes in json.loads(done.stdout).items():
        reserved = reserved_bytes(name, (tmp_path / "large" / name).read_bytes())
        assert peak_bytes <= reserved + FIXED_BYTES, f"{name}: {peak_bytes / PIXELS:.1f} bytes per pixel"
        assert peak_bytes > 3 * PIXELS, "the result alone takes this"
