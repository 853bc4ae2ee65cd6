"""How well networks tell the Dice of their own masks in advance, and the calibrations of the packaged ones.

    python benchmarks/expected_dice.py SHARED [NAME ...] [--note] [--cache FOLDER]

SHARED is as in benchmarks/any_vehicle.py; a NAME is that of a packaged network, or an .onnx file. A network that
refines the masks of another is measured with that one, and gets a calibration of its own. Looks at the held-out photos
of every folder, at composites, and at cropped, darkened and blurred versions of many of them. Every figure is of groups
(cars, scenes) that its calibration was not fitted on: five times a fifth of the groups. All networks look at a photo
together, so it is decoded once. How sure each was is kept in FOLDER, so that a second run takes seconds. Writes
docs/results/expected_dice.json and two pictures. With --note a calibration by all groups is written into each file,
whose weights stay as they are.
"""

import argparse
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from hashlib import sha256
from itertools import chain, count, islice, takewhile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from any_vehicle import MATERIAL, PARTS, STUDIO, composites_of, held_out
from carmask.evaluation.evaluate import load_truth
from carmask.evaluation.metrics import photo_dice
from carmask.exporting.calibrate_dice import ALTERED_WEIGHT, AlteredPhoto, ScoredMask, altered, fit
from carmask.exporting.graph import note_dice_calibration
from carmask.imaging.decode import decode_photo
from carmask.imaging.geometry import Size
from carmask.models.card import read_card
from carmask.models.dice_calibration import Certainty, DiceCalibration, certainty
from carmask.runner import default_workers, in_batches, map_ahead, one_opencv_thread
from carmask.runtime.locate import locate, packaged_models
from carmask.segmenter import Fitted, Raw, Segmenter
from dice_figures import doubtful_figures, draw_reliability, draw_risk, errors, reliability, risk
from record import RESULTS, record, recorded

PICTURES = RESULTS.parent / "pictures"
FOLDS = 5
COMPOSITES, BACKGROUNDS = "composites", "backgrounds"
# In large folders versions are made of every n-th photo. They count a tenth, and are most of what takes time.
ALTERED_EVERY = {STUDIO: 4, "no-vehicle": 3, BACKGROUNDS: 3, COMPOSITES: 3}
# What the figures are reported of: folders, and the mean absolute error that is aimed at.
AREAS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "studio": ((STUDIO,), 0.004),
    "street": (("street-cars", "street-small"), 0.02),
    "composites": ((COMPOSITES,), 0.06),
    "foreign": (("car-parts", "fire-trucks", "scenes"), 0.06),
    "no vehicle": (("no-vehicle", BACKGROUNDS), None),
}
# Pictures that pass through a network together; a picture's result does not depend on the others.
BATCH = 4


@dataclass(frozen=True)
class Looked:
    """What a network said of a version of a photo: how sure it was of its mask, and the Dice that this has."""

    folder: str
    version: str
    group: str
    dice: float
    score: float
    is_empty: bool

    @property
    def mask(self) -> ScoredMask:
        """As it is calibrated with; altered photos weigh less."""
        return ScoredMask(Certainty(self.score, self.is_empty), self.dice, ALTERED_WEIGHT if self.version else 1.0)


@dataclass(frozen=True, eq=False)
class Shown:
    """A version of a photo and its true mask."""

    folder: str
    version: str
    group: str
    image_HWC: NDArray[np.uint8]
    truth_HW: NDArray[np.bool_]
    known_HW: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture as each network sees it, and what each found in it."""

    shown: Shown
    fitted: list[Fitted]
    raw: list[Raw] = field(default_factory=list)


def main() -> None:
    """Look, calibrate, measure, draw and note."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("names", nargs="*", default=sorted(packaged_models()))
    parser.add_argument("--note", action="store_true", help="write the calibrations into the packaged files")
    parser.add_argument("--cache", type=Path, default=Path(".cache", "expected_dice"))
    given = parser.parse_args()
    looked = look(given.shared, given.names, given.cache)
    figures = recorded("expected_dice")
    for model in given.names:
        name, rows = Path(model).stem, looked[model]
        calibration = calibrate(rows)
        figures[name] = figures_of(rows, cross_validated(rows)) | {"ms": round(time_ms(calibration), 3)}
        if given.note:
            note(locate(model), calibration)
    record("expected_dice", figures)
    shown = {name: figures[name] for name in sorted(figures)}
    draw_reliability(shown, PICTURES / "expected_dice_reliability.png")
    draw_risk(shown, PICTURES / "expected_dice_risk.png")


def note(path: Path, calibration: DiceCalibration) -> None:
    """Write a calibration into a network's file, whose map of empty masks stays if there are too few for a new one."""
    before = read_card(path).dice_calibration
    if before and not calibration.empty:
        calibration = calibration.model_copy(update={"empty": before.empty})
    note_dice_calibration(path, calibration)


def look(shared: Path, names: Sequence[str], cache: Path) -> dict[str, list[Looked]]:
    """What each network says of all photos; read from the cache, or computed and kept there."""
    files = {name: cache / f"{Path(name).stem}-{weights_digest(locate(name))}.json" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    looked = look_together([Segmenter.load(name) for name in missing], shown_photos(shared)) if missing else []
    for name, rows in zip(missing, looked, strict=True):
        cache.mkdir(parents=True, exist_ok=True)
        files[name].write_text(json.dumps([astuple(row) for row in rows]))
    return {name: [Looked(*row) for row in json.loads(file.read_text())] for name, file in files.items()}


def look_together(segmenters: Sequence[Segmenter], pictures: Iterator[Shown]) -> list[list[Looked]]:
    """What each network says of all pictures, which are made, fitted and measured in threads while a network runs."""
    looked: list[list[Looked]] = [[] for _ in segmenters]
    workers = default_workers()
    with one_opencv_thread(), ThreadPoolExecutor(1) as maker, ThreadPoolExecutor(workers) as pool:
        made = chain.from_iterable(
            takewhile(bool, map_ahead(maker, lambda _: list(islice(pictures, 1)), count(), BATCH))
        )
        fitted = map_ahead(pool, lambda shown: fit_together(segmenters, shown), made, workers + BATCH)
        inferred = chain.from_iterable(infer_together(segmenters, batch) for batch in in_batches(fitted, BATCH))
        measured = map_ahead(pool, lambda one: measure_together(segmenters, one), inferred, workers + BATCH)
        for number, rows in enumerate(measured):
            for of_network, row in zip(looked, rows, strict=True):
                of_network.append(row)
            if number % 100 == 0:
                print(f"{number} photos looked at", flush=True)
    return looked


def fit_together(segmenters: Sequence[Segmenter], shown: Shown) -> Seen:
    """Fit a picture for all networks; those that see it at the same size share it."""
    known: dict[Any, Fitted] = {}
    keys = [
        (
            segmenter.refiner is None,
            *((one.card.geometry, one.card.stride_px, one.card.channels) for one in segmenter.members),
        )
        for segmenter in segmenters
    ]
    for key, segmenter in zip(keys, segmenters, strict=True):
        if key not in known:
            known[key] = segmenter.fit(segmenter.decode(shown.image_HWC))
    return Seen(shown, [known[key] for key in keys])


def infer_together(segmenters: Sequence[Segmenter], batch: Sequence[Seen]) -> list[Seen]:
    """Run all networks on a batch; one that another network refines runs once for both."""
    known: dict[Any, Raw] = {}
    for index, segmenter in enumerate(segmenters):
        places = [member.place for member in segmenter.members]
        keys = [(*places, *(view.image_HWC.tobytes() for view in one.fitted[index].views)) for one in batch]
        new = {key: one.fitted[index] for key, one in zip(keys, batch, strict=True) if key not in known}
        known.update(zip(new, segmenter.infer(list(new.values()), pad_to=BATCH), strict=True))
        for key, one in zip(keys, batch, strict=True):
            one.raw.append(known[key])
    return list(batch)


def measure_together(segmenters: Sequence[Segmenter], seen: Seen) -> list[Looked]:
    """How sure each network is of its mask of a picture, and the Dice of it."""
    rows = []
    for segmenter, fitted, raw in zip(segmenters, seen.fitted, seen.raw, strict=True):
        shown, probability_HW = seen.shown, segmenter.restore(fitted, raw)
        dice = photo_dice(shown.truth_HW, probability_HW >= segmenter.threshold, shown.known_HW)
        score, is_empty = certainty(probability_HW, segmenter.threshold)
        rows.append(Looked(shown.folder, shown.version, shown.group, dice, score, is_empty))
    return rows


def weights_digest(path: Path) -> str:
    """A digest of all but the metadata, and of the network whose masks this one refines."""
    refined = read_card(path).refines
    graphs = [onnx.load(one).graph for one in ([path, locate(refined)] if refined else [path])]
    return sha256(b"".join(graph.SerializeToString(deterministic=True) for graph in graphs)).hexdigest()[:12]


def shown_photos(shared: Path) -> Iterator[Shown]:
    """All held-out photos and composites as they are, and many also cropped, darkened and blurred."""
    pairs = {Path(folder).name: held_out(shared / folder) for folder in (*PARTS, *MATERIAL)}
    for name in [*(Path(folder).name for folder in PARTS), BACKGROUNDS]:
        for number, pair in enumerate(pairs[name]):
            image_HWC = decode_photo(pair.image).image_HWC
            truth = load_truth(pair, image_HWC.shape[:2])
            versions = altered(image_HWC, truth.mask_HW, truth.known_HW, f"{name}/{pair.id}")
            yield from shown_versions(versions, name, number, f"{name}/{pair.group}")
    for number, composite in enumerate(composites_of(pairs)):
        group = f"{COMPOSITES}/{number}"
        versions = altered(composite.image_HWC, composite.truth_HW, None, group)
        yield from shown_versions(versions, COMPOSITES, number, group)


def shown_versions(versions: Iterator[AlteredPhoto], folder: str, number: int, group: str) -> Iterator[Shown]:
    """The versions of photo `number` of a folder, or only the first, which is as it is."""
    wanted = None if number % ALTERED_EVERY.get(folder, 1) == 0 else 1
    for one in islice(versions, wanted):
        yield Shown(folder, one.version, group, one.image_HWC, one.truth_HW, one.known_HW)


def cross_validated(rows: Sequence[Looked]) -> NDArray[np.float64]:
    """The expected Dice of each mask, by a calibration that was fitted on other groups; NaN where it has none."""
    folds = [zlib.crc32(row.group.encode()) % FOLDS for row in rows]
    calibrations = [
        calibrate([row for row, of in zip(rows, folds, strict=True) if of != fold]) for fold in range(FOLDS)
    ]
    expected = [calibrations[fold](row.mask.certainty) for row, fold in zip(rows, folds, strict=True)]
    return np.array(expected, np.float64)


def calibrate(rows: Sequence[Looked]) -> DiceCalibration:
    """A calibration by these masks."""
    names = ", ".join([*(Path(folder).name for folder in PARTS), BACKGROUNDS])
    fitted_on = f"held-out photos of {names}, and {COMPOSITES}; also cropped, darkened and blurred"
    calibration = fit([row.mask for row in rows], fitted_on)
    if calibration is None:
        raise SystemExit("too few masks to calibrate on")
    return calibration


def figures_of(rows: Sequence[Looked], expected: NDArray[np.float64]) -> dict[str, Any]:
    """How far expected and measured Dice are apart in each area, and what the most doubtful masks are."""
    # Too few empty masks give them no calibration.
    has_number = ~np.isnan(expected)
    figures: dict[str, Any] = {"masks_without_expected_dice": int((~has_number).sum())}
    rows, expected = [row for row, has in zip(rows, has_number, strict=True) if has], expected[has_number]
    dice = np.array([row.dice for row in rows])
    plain = np.array([not row.version for row in rows])
    for area, (folders, aim) in AREAS.items():
        inside = np.array([row.folder in folders for row in rows])
        figures[area] = errors(dice[inside & plain], expected[inside & plain]) | {"aim": aim}
        figures[area]["altered"] = errors(dice[inside & ~plain], expected[inside & ~plain])
    figures["all"] = errors(dice[plain], expected[plain]) | doubtful_figures(dice[plain], expected[plain])
    figures["all"]["altered"] = errors(dice[~plain], expected[~plain]) | doubtful_figures(
        dice[~plain], expected[~plain]
    )
    figures["reliability"] = reliability(dice, expected)
    figures["risk"] = {"plain": risk(dice[plain], expected[plain]), "altered": risk(dice[~plain], expected[~plain])}
    return figures


def time_ms(calibration: DiceCalibration, size_HW: Size = (1280, 1918)) -> float:
    """The median milliseconds that an expected Dice takes for a photo of the studio."""
    y_H1, x_1W = np.ogrid[: size_HW[0], : size_HW[1]]
    distance_HW = np.hypot(y_H1 - size_HW[0] / 2, x_1W - size_HW[1] / 2)
    probability_HW = (1 / (1 + np.exp((distance_HW - 400) / 4))).astype(np.float32)
    times_s = []
    for _ in range(50):
        started_s = perf_counter()
        calibration(certainty(probability_HW, 0.5))
        times_s.append(perf_counter() - started_s)
    return 1000 * median(times_s)


if __name__ == "__main__":
    main()
