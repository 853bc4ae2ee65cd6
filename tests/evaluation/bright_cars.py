"""Photos whose masks and errors are known to the pixel, and a segmenter that takes what is bright for the object."""

import numpy as np
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.decode import decode_photo
from carmask.result import Result

BRIGHT, DARK = 210, 40


class BrightnessSegmenter:
    """Takes what is bright for the object. Refuses any batch with a photo of `refused_HW`."""

    threshold = 0.6

    def __init__(self, refused_HW=None):
        self.refused_HW = refused_HW
        self.decoded = self.predicted = self.most_waiting = 0

    def decode(self, source):
        self.decoded += 1
        self.most_waiting = max(self.most_waiting, self.decoded - self.predicted)
        return decode_photo(source, channels=1)

    def fit(self, photo):
        return photo

    def infer(self, photos, *, pad_to):  # noqa: ARG002
        if any(photo.size_HW == self.refused_HW for photo in photos):
            raise CarmaskError("a photo is too odd for this network")
        self.predicted += len(photos)
        return [photo.image_HWC[..., 0].astype(np.float32) / 255 for photo in photos]

    def restore(self, _, probability_HW):
        return probability_HW

    def result(self, probability_HW):
        return Result(probability_HW, self.threshold)

    def predict_photos(self, photos):
        return self.infer(photos, pad_to=1)

    def describe(self):
        return {"name": "brightness", "input": {"height_px": None}, "threshold": self.threshold}


def write_pair(folder, id_, truth_HW, bright_HW):
    """A photo whose bright pixels are `bright_HW`, and its true mask, in Carvana's layout."""
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    photo_HW3 = np.where(bright_HW[..., None], np.uint8(BRIGHT), np.uint8(DARK)).repeat(3, axis=2)
    Image.fromarray(photo_HW3).save(folder / "train" / f"{id_}.png")
    Image.fromarray(truth_HW.astype(np.uint8) * 255).save(folder / "train_masks" / f"{id_}_mask.gif")


def break_photos(folder):
    """Break four photos in four ways; returns the name of the broken file, by id."""
    cut = folder / "train" / "aa_02.png"
    cut.write_bytes(cut.read_bytes()[:80])
    (folder / "train_masks" / "bb_01_mask.gif").write_bytes(b"")
    Image.new("1", (33, 44)).save(folder / "train_masks" / "bb_03_mask.gif")
    write_pair(folder, "cc_04", np.ones((20, 20), dtype=bool), np.ones((20, 20), dtype=bool))
    return {
        "aa_02": "aa_02.png",
        "bb_01": "bb_01_mask.gif",
        "bb_03": "bb_03_mask.gif",
        "cc_04": "cc_04.png",
    }


def add_empty(folder):
    """Add three photos without a vehicle: nothing found, one pixel found, much found. Returns the last one's mask."""
    empty_HW = np.zeros((60, 50), dtype=bool)
    bright_HW = empty_HW.copy()
    write_pair(folder, "no_00", empty_HW, bright_HW)
    bright_HW[30, 20] = True
    write_pair(folder, "no_01", empty_HW, bright_HW)
    bright_HW[:20] = True
    write_pair(folder, "no_02", empty_HW, bright_HW)
    return bright_HW


def leave_unknown(folder, id_):
    """Say in a photo's mask (1 the object, 0 background) that a corner is unknown (7). Returns what is known."""
    path = folder / "train_masks" / f"{id_}_mask.gif"
    truth_HW = np.asarray(Image.open(path).convert("L")) > 0
    known_HW = np.ones_like(truth_HW)
    known_HW[:25, :20] = False
    path.unlink()
    Image.fromarray(np.where(known_HW, truth_HW, 7).astype(np.uint8)).save(path.with_suffix(".png"))
    return known_HW
