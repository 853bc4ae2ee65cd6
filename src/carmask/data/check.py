"""Read every photo and mask of a data set, and report all faults, not only the first."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from carmask.data.duplicates import REDUCED_HW, Signature, near_pictures, same_pictures, signature_of
from carmask.data.layout import Problem, ProblemKind, in_order
from carmask.data.own_split import find_own_split
from carmask.data.pairs import Dataset, Pair, describe_inverted, load_soft_mask
from carmask.data.split import Split, SplitError, shared_groups
from carmask.data.turned import TURNED, fits_turned
from carmask.errors import CarmaskError
from carmask.imaging.decode import MaskReading, UnreadableImage, decode_photo
from carmask.imaging.geometry import size_text
from carmask.imaging.mask_values import FOREGROUND_FROM
from carmask.progress import Progress, counted
from carmask.runner import in_threads


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        dataset: The pairs, and the problems that the folders alone show.
        problems: All problems, sorted by subject.
        rules: How masks were read -> number of masks.
        sizes: Photo size (height, width) in pixels -> number of photos.
        area_of: Share of the known pixels, 0..1, that the mask covers, for every readable mask.
        unknown_of: Share of the picture, 0..1, that is unknown, for every mask with unknown pixels.
        doubtful: Ids of the pairs with a problem -> the kinds of problem.
        side_sizes: Number of pairs to train on and of held-out ones, by the split or the data's own folders or lists.
        outside_split: Number of pairs that the split does not name; 0 without a split.
        seconds: Duration of the check.
    """

    dataset: Dataset
    problems: tuple[Problem, ...]
    rules: dict[str, int]
    sizes: dict[tuple[int, int], int]
    area_of: dict[str, float] = field(repr=False)
    unknown_of: dict[str, float] = field(repr=False)
    doubtful: dict[str, str]
    side_sizes: tuple[int, int]
    outside_split: int
    seconds: float


@dataclass(frozen=True)
class _PairFindings:
    """What reading one pair showed."""

    problems: list[Problem]
    size_HW: tuple[int, int] | None = None
    signature: Signature | None = None
    rule: str | None = None
    area: float | None = None
    unknown_area: float = 0.0
    inverted: int | None = None


def check_dataset(
    dataset: Dataset,
    *,
    split: Path | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every photo and mask of a data set.

    Args:
        dataset: From `find_pairs`.
        split: A split.json; the data's own folders or lists train and val if None. Photos are also compared between its
            sides.
        progress: Called with (pairs read, pairs in all).
    """
    started = time.perf_counter()
    pairs = {pair.id: pair for pair in dataset.pairs}
    examined = counted(in_threads(_examine, dataset.pairs), progress, len(pairs))
    findings = dict(zip(pairs, examined, strict=True))
    problems = list(dataset.problems)
    kinds_of: dict[str, list[str]] = defaultdict(list)
    for id_, found in findings.items():
        problems += found.problems
        for problem in found.problems:
            kinds_of[id_].append(problem.kind)

    inverted = {id_: found.inverted for id_, found in findings.items() if found.inverted is not None}
    if warning := describe_inverted(inverted, sum(bool(found.area) for found in findings.values())):
        problems.append(Problem(dataset.root.resolve().name, "inverted masks", warning))
    try:
        sides, outside, split_problems = _read_split(split, dataset) if split else _find_own_sides(dataset)
    except SplitError as error:
        where = split or dataset.root.resolve()
        sides, outside, split_problems = ([], []), 0, [Problem(where.name, "split", str(error))]
    problems += split_problems
    signatures = {id_: found.signature for id_, found in findings.items() if found.signature}
    for ids, problem in _duplicates(pairs, signatures, sides):
        problems.append(problem)
        for id_ in ids:
            kinds_of[id_].append(problem.kind)
    return CheckReport(
        dataset=dataset,
        problems=in_order(problems),
        rules=dict(Counter(found.rule for found in findings.values() if found.rule).most_common()),
        sizes=dict(Counter(found.size_HW for found in findings.values() if found.size_HW).most_common()),
        area_of={id_: found.area for id_, found in findings.items() if found.area is not None},
        unknown_of={id_: found.unknown_area for id_, found in findings.items() if found.unknown_area},
        doubtful={id_: ", ".join(dict.fromkeys(kinds)) for id_, kinds in kinds_of.items()},
        side_sizes=(len(sides[0]), len(sides[1])),
        outside_split=outside,
        seconds=time.perf_counter() - started,
    )


def measure_areas(pairs: Sequence[Pair], *, progress: Progress | None = None) -> tuple[dict[str, float], list[Problem]]:
    """Read every mask. Return the share of its known pixels, 0..1, that each covers, and the unreadable masks."""

    def measure(pair: Pair) -> float | Problem:
        try:
            return load_soft_mask(pair).area
        except CarmaskError as error:
            return _unreadable(pair, error)

    area_of: dict[str, float] = {}
    problems = []
    measured = counted(in_threads(measure, pairs), progress, len(pairs))
    for pair, found in zip(pairs, measured, strict=True):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            area_of[pair.id] = found
    return area_of, problems


def _examine(pair: Pair) -> _PairFindings:
    problems: list[Problem] = []
    size_HW, signature, reading, is_turned = None, None, None, False
    try:
        # A JPEG that is decoded at a reduced size is still read to its last byte, so a truncated photo is found.
        photo = decode_photo(pair.image, at_least_HW=REDUCED_HW)
        size_HW, signature = photo.size_HW, signature_of(photo)
    except CarmaskError as error:
        problems.append(_unreadable(pair, error))
    if size_HW or isinstance(pair.mask, Path):  # reading run lengths needs the photo's size
        try:
            reading = load_soft_mask(pair, photo_HW=size_HW)
            is_turned = size_HW is not None and fits_turned(photo, reading.soft_HW)
        except CarmaskError as error:
            problems.append(_unreadable(pair, error))
    if reading is None:
        return _PairFindings(problems, size_HW, signature)
    if pair.mask is None:
        return _PairFindings(problems, size_HW, signature, area=0.0)
    if is_turned:
        problems.append(Problem(pair.id, "turned mask", TURNED))
    problems += [Problem(pair.id, kind, detail) for kind, detail in _mask_problems(reading, size_HW)]
    return _PairFindings(
        problems, size_HW, signature, reading.rule, reading.area, reading.unknown_area, reading.inverted
    )


def _mask_problems(reading: MaskReading, photo_HW: tuple[int, int] | None) -> Iterator[tuple[ProblemKind, str]]:
    height, width = reading.soft_HW.shape
    if photo_HW and photo_HW != (height, width):
        turned = ", as if one of them were rotated" if photo_HW == (width, height) else ""
        sizes = f"the photo is {size_text(photo_HW)} (height x width), the mask {size_text((height, width))}"
        yield "size mismatch", f"{sizes}{turned}"
    known = reading.soft_HW if reading.known_HW is None else reading.soft_HW[reading.known_HW]
    brightest, darkest = int(known.max()), int(known.min())
    if brightest < FOREGROUND_FROM:
        reason = "no pixel is foreground" if brightest == 0 else f"its largest value is {brightest} of 255, under half"
        yield "empty mask", f"{reason} ({reading.rule})"
    elif darkest >= FOREGROUND_FROM:
        yield "full mask", f"every pixel is foreground ({reading.rule})"
    if reading.odd:
        yield "odd mask values", reading.odd


def _unreadable(pair: Pair, error: CarmaskError) -> Problem:
    if isinstance(error, UnreadableImage):
        return Problem(f"{pair.id} ({Path(error.name).name})", "unreadable", f"{error.cause}; {error.advice}")
    return Problem(pair.id, "unreadable", str(error))


def _read_split(path: Path, dataset: Dataset) -> tuple[tuple[list[str], list[str]], int, list[Problem]]:
    """Compare a split with the data: its sides, the number of pairs that it does not name, and its problems."""
    group_of = dataset.group_of
    split = Split.load(path).spelled_as(group_of)
    problems = [
        Problem(id_, "split", f"named in {path.name}, but there is no such pair in the data")
        for id_ in (*split.train, *split.validation)
        if id_ not in group_of
    ]
    train, validation = ([id_ for id_ in side if id_ in group_of] for side in (split.train, split.validation))
    problems += [
        Problem(group, "split", f"{path.name} has photos of this group in both train and validation")
        for group in shared_groups(train, validation, group_of)
    ]
    return (train, validation), len(group_of) - len(train) - len(validation), problems


def _find_own_sides(dataset: Dataset) -> tuple[tuple[list[str], list[str]], int, list[Problem]]:
    """As `_read_split`, for the data set's own folders or lists train and val, if there are any."""
    split = find_own_split(dataset)
    if split is None:
        return ([], []), 0, []
    # The ids begin with the side's folder, and so do the groups, but not a car's name.
    car_of = {pair.id: PurePosixPath(pair.group).name if pair.view else pair.id for pair in dataset.pairs}
    problems = [
        Problem(car, "split", "photos of this group are in both train and validation")
        for car in shared_groups(split.train, split.validation, car_of)
    ]
    outside = len(dataset.pairs) - len(split.group_of)
    return (list(split.train), list(split.validation)), outside, problems


def _duplicates(
    pairs: dict[str, Pair], signatures: dict[str, Signature], sides: tuple[list[str], list[str]]
) -> Iterator[tuple[list[str], Problem]]:
    train, validation = (set(side) for side in sides)
    reported: set[str] = set()
    for ids in same_pictures(pairs, signatures):
        across = not train.isdisjoint(ids) and not validation.isdisjoint(ids)
        kind: ProblemKind = "duplicate across split" if across else "duplicate picture"
        reported.update(ids if across else ())
        where = "; they are in train and in validation" if across else ""
        yield ids, Problem(ids[0], kind, f"the same picture as {', '.join(ids[1:])}{where}")
    readable = [[id_ for id_ in side if id_ in signatures] for side in sides]
    for id_, other, levels in near_pictures(signatures, *readable):
        if id_ not in reported:
            detail = f"in validation, and nearly the same picture as {other} in train ({levels:.1f} gray levels apart)"
            yield [id_, other], Problem(id_, "duplicate across split", detail)
