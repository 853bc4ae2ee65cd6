"""Existing masks, as files, as labels or as a table of run lengths, listed by the names of their photos."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from carmask import __version__
from carmask.data.layout import VOC_MASKS, index_folder, photo_folder
from carmask.data.mask_files import photo_stems
from carmask.data.pairs import SCALED, Pair, load_soft_mask
from carmask.files import SimilarNames
from carmask.imaging.decode import FIRST, MaskReading, UnreadableImage, read_size
from carmask.imaging.geometry import size_text
from carmask.imaging.mask_values import LOOKS_LIKE_A_PHOTO
from carmask.imaging.rle import RleError, decode_carvana, read_rows
from carmask.labels.classes import parse_names
from carmask.labels.match import PhotoNames, plain_name
from carmask.labels.read import SUFFIXES as LABEL_SUFFIXES
from carmask.labels.read import Labels, read_labels, read_voc_labels
from carmask.labels.shapes import LabelError, PhotoLabels
from carmask.labels.voc import is_voc
from carmask.pipeline.kinds import TABLE_SUFFIXES
from carmask.pipeline.photo_list import PhotoFailure, PhotoList, SourceError
from carmask.pipeline.sources import find_photos
from carmask.result import Result

_THRESHOLD = 0.5
_SHOWN_PHOTOS = 3

# Reads a mask, in any thread; with a remark on what was left out of it.
Read = Callable[[], tuple[Result, str]]


@dataclass(frozen=True)
class MaskList:
    """Masks, named by their photos.

    table: the file whose rows they are, unless each has a file of its own. labels: of each photo, if they are labels,
    and `choice` what was said about their classes.
    """

    photos: PhotoList
    foreground: int | None = None
    table: Path | None = None
    labels: Sequence[PhotoLabels] = ()
    choice: str = ""

    def provenance(self) -> dict[str, Any]:
        """Return what results depend on beside their kind, as JSON can hold it."""
        masks = f"labels {self.choice}" if self.labels else "files"
        if self.table is not None:
            with self.table.open("rb") as stream:
                masks = f"table {file_digest(stream, 'sha256').hexdigest()[:12]}"
        return {"carmask": __version__, "masks": masks, "foreground": self.foreground}

    def readers(self) -> Iterator[tuple[str, Read]]:
        """Yield each photo's name with the function that reads its mask, in the order of `photos`."""
        if self.labels:
            for name, labels in zip(self.photos.names, self.labels, strict=True):
                yield name, partial(_read_labels, labels, self.photos.path(name))
            return
        if self.table is None:
            for name, origin in zip(self.photos.names, self.photos.origins or (), strict=True):
                yield name, partial(_read_file, origin, self.photos.path(name), self.foreground)
            return
        for _, name, runs in match_rows(self.table, self.photos, lambda *_: None):
            photo = self.photos.path(name)
            yield name, partial(_read_runs, runs, photo, f"{self.table}, row of {photo.name}")


def find_masks(
    source: Path,
    *,
    photos: Path | None,
    foreground: int | None,
    results: Path | None,
    labels: str = "",
    ignore_labels: str = "",
) -> MaskList:
    """List masks by the names of their photos.

    Args:
        source: As for `find_photos`, of masks: `car_mask.gif` and `car.png` are masks of the photo `car`. Or a table of
            run lengths (.csv, .csv.gz). Or labels: a file, or a folder with some.
        photos: The photos. Without them the photo of a mask is assumed to be a .jpg of the same stem.
        foreground: The stored value that is foreground; see `decode_mask`.
        results: See `find_photos`.
        labels: Of label files: the classes that are vehicles, "car,truck"; see `choose_labels`.
        ignore_labels: Of label files: the classes that mean unknown, which is background here.

    Raises:
        CarmaskError: there are no masks; or a table without photos, which alone know the size of the masks, or with
            `foreground`, which a table does not have.
    """
    known = find_photos(photos, results=results) if photos is not None else None
    if source.name.lower().endswith(TABLE_SUFFIXES["carvana-csv"]):
        if foreground is not None:
            raise SourceError(f"{source}: a table of run lengths has no mask values; leave out --foreground")
        if known is None:
            raise SourceError(f"{source}: does not hold the size of its masks; give the folder of the photos, --photos")
        failures = list(known.unlisted)
        rows = match_rows(source, known, lambda _, cause: failures.append(PhotoFailure(source, cause)))
        names = [name for _, name, _ in rows]
        if not names:
            raise SourceError(failures[0].cause if failures else f"{source}: has no rows")
        return MaskList(replace(known, names=names, unlisted=tuple(failures)), table=source)
    found = _read_label_files(source, parse_names(labels), parse_names(ignore_labels)) if foreground is None else None
    if found is not None:
        matched, chosen = _match_labels(found, source, known)
        return MaskList(matched, labels=chosen, choice=f"{labels}; unknown {ignore_labels}")
    if labels or ignore_labels:
        raise SourceError(f"{source}: has no label files; leave out --labels and --ignore-labels")
    return MaskList(_match_files(find_photos(source, results=results, with_results=True), known), foreground)


def match_rows(
    table: Path, photos: PhotoList, report: Callable[[str, str], None], *, strip: bool = True, option: str = "--photos"
) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the photo and the run lengths of each row that belongs to one photo, the first of each photo.

    Args:
        table: Run lengths by the photos' file names, .csv or .csv.gz.
        photos: Their names are those that are yielded.
        report: Called for every other row, with the kind of the problem and with a sentence that names the line.
        strip: Whether spaces around a name, its case and how its accents are stored do not matter.
        option: The option that the photos were given with.

    Raises:
        TableError: it is not such a table.
    """
    photos_of = _group(photos.names, lambda name: PurePosixPath(name).name)
    similar = SimilarNames(photos_of)
    done: set[str] = set()
    for line, fields in read_rows(table):
        label = f"{table}, line {line}"
        if len(fields) != 2:
            report("rows with other fields", f"{label}: {len(fields)} fields instead of a name and run lengths")
            continue
        name = fields[0].strip() if strip else fields[0]
        name = (similar.find(name) if strip else None) or name
        found = photos_of.get(name, [])
        if not found:
            other = similar.find(name)
            but = f", only {other!r}, which differs in case or in how accents are stored" if other else ""
            report("unknown photos", f"{label}: there is no photo {name!r}{but}")
        elif len(found) > 1:
            report("photos of the same name", f"{label}: {name}: {_several(found, option)}")
        elif name in done:
            report("photos with several rows", f"{label}: {name}: has a row already")
        else:
            done.add(name)
            yield line, found[0], fields[1]


def _match_files(masks: PhotoList, known: PhotoList | None) -> PhotoList:
    photo_of = _group(known.names, _stem) if known is not None else {}
    similar = SimilarNames(photo_of)
    names: dict[str, Path] = {}
    failures = list(masks.unlisted)
    for mask in masks.names:
        path = masks.path(mask)
        stem, bare = photo_stems(_stem(mask))
        found = photo_of.get(similar.find(stem, bare) or "") if known is not None else [f"{bare}.jpg"]
        if not found or len(found) > 1:
            none = "no photo has this name; rename it or move it out of the folder"
            failures.append(PhotoFailure(path, f"{path}: {_several(found) if found else none}"))
        elif found[0] in names:
            cause = f"{names[found[0]]} is a mask of the same photo; remove one of them"
            failures.append(PhotoFailure(path, f"{path}: {cause}"))
        else:
            names[found[0]] = path
    if not names:
        raise SourceError(failures[0].cause)
    root = known.root if known is not None else masks.root
    return replace(masks, root=root, names=list(names), unlisted=tuple(failures), origins=list(names.values()))


def _read_label_files(source: Path, labels: tuple[str, ...], ignored: tuple[str, ...]) -> Labels | None:
    """Read a label file or those in a folder; None if it is none, or the folder has none."""
    if not source.is_dir():
        return read_labels(source, labels, ignored) if source.suffix.lower() in LABEL_SUFFIXES else None
    masks = next((folder for folder in (source, *source.iterdir()) if folder.name.lower() == VOC_MASKS), None)
    if masks is not None and is_voc(masks):
        return read_voc_labels(source, masks, labels, ignored)
    found = read_labels(source, labels, ignored)
    pictures = [path for paths in index_folder(source).pictures.values() for path in paths] if found else []
    names = PhotoNames(path.relative_to(source).as_posix() for path in pictures)
    # Pictures that no label file names are masks, among which somebody keeps a table of theirs.
    return found if found and (not pictures or any(names.find(one.photo) for one in found.photos)) else None


def _match_labels(found: Labels, source: Path, known: PhotoList | None) -> tuple[PhotoList, list[PhotoLabels]]:
    """Match labels with photos. Without photos, those beside the labels count, or else the names in the labels."""
    folder = source if source.is_dir() else source.parent
    beside = known
    if known is None:
        with suppress(SourceError):
            beside = find_photos(photo_folder(folder), results=None)
    names = PhotoNames(beside.names if beside is not None else ())
    failures = [PhotoFailure(path, cause) for path, cause in found.problems]
    matched: dict[str, list[PhotoLabels]] = {}
    for one in found.photos:
        hits = names.find(one.photo)
        if not hits and known is None and one.size_HW:
            hits = [plain_name(one.photo)]
        if len(hits) != 1:
            cause = _several(hits) if hits else "there is no such photo; give the folder of the photos with --photos"
            failures.append(PhotoFailure(one.file, f"{one.file}, {one.photo}: {cause}"))
        else:
            matched.setdefault(hits[0], []).append(one)
    for name in [name for name, several in matched.items() if len(several) > 1]:
        files = " and ".join(str(one.file) for one in matched.pop(name))
        failures.append(PhotoFailure(Path(name), f"{name}: has two labels, in {files}; keep one"))
    if not matched:
        raise SourceError(failures[0].cause if failures else f"{source}: has no labels")
    labels = [several[0] for several in matched.values()]
    root = folder if beside is None else beside.root
    alone = len(matched) == 1 and not source.is_dir()
    origins = [one.file for one in labels]
    return PhotoList(root, list(matched), tuple(failures), origins=origins, alone=alone), labels


def _several(photos: Sequence[str], option: str = "--photos") -> str:
    """Say that photos have one name, and what to do."""
    first = ", ".join(photos[:_SHOWN_PHOTOS]) + (", ..." if len(photos) > _SHOWN_PHOTOS else "")
    return f"{len(photos)} photos have this name ({first}); give one of them, or a folder with only one, with {option}"


def _stem(name: str) -> str:
    """Return a name without its ending, with its folders."""
    return str(PurePosixPath(name).with_suffix(""))


def _group(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _read_file(path: Path, photo: Path, foreground: int | None) -> tuple[Result, str]:
    photo_HW = read_size(photo) if photo.exists() else None
    reading = load_soft_mask(Pair(path.stem, photo, path, path.stem, foreground=foreground), photo_HW=photo_HW)
    if reading.odd == LOOKS_LIKE_A_PHOTO and foreground is None:
        raise UnreadableImage(str(path), LOOKS_LIKE_A_PHOTO, "move photos out of the folder of masks")
    if photo_HW is not None and reading.soft_HW.shape != photo_HW:
        sizes = f"is {size_text(reading.soft_HW.shape)}, its photo {size_text(photo_HW)}"
        raise SourceError(f"{path}: {sizes}; replace one of them")
    scaled = SCALED if reading.rule.endswith(SCALED) else ""
    return _result(reading), FIRST if reading.is_first else scaled


def _read_labels(labels: PhotoLabels, photo: Path) -> tuple[Result, str]:
    if labels.size_HW and not photo.exists():
        reading = labels.read(labels.size_HW)
    else:
        photo_HW = read_size(photo)
        reading = load_soft_mask(Pair(photo.stem, photo, labels, photo.stem), photo_HW=photo_HW)
        if reading.soft_HW.shape != photo_HW:
            label_size = size_text(reading.soft_HW.shape)
            raise LabelError(f"{labels.file}: is for a photo of {label_size}, but {photo} is {size_text(photo_HW)}")
    return _result(reading), "shapes that reach out of the picture are clipped" if reading.odd else ""


def _result(reading: MaskReading) -> Result:
    return Result(reading.soft_HW.astype(np.float32) / np.float32(255), _THRESHOLD)


def _read_runs(runs: str, photo: Path, label: str) -> tuple[Result, str]:
    try:
        mask_HW = decode_carvana(runs, read_size(photo))
    except RleError as error:
        raise RleError(f"{label}: {error}") from error
    return Result(mask_HW.astype(np.float32), _THRESHOLD), ""
