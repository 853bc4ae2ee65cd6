"""Photos whose truth is in files of masks, by their names, or in run lengths; and photos without a vehicle."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from carmask.data.labeled import FoundPhotos, Truth
from carmask.data.layout import (
    CARVANA_CSV,
    EMPTY_PHOTOS,
    MASK_ENDING,
    DatasetError,
    DatasetPaths,
    FileIndex,
    Problem,
    describe_first,
    in_order,
    index_folder,
)
from carmask.files import SimilarNames, as_valid_text
from carmask.imaging.rle import TableError, read_rows


def find_mask_files(located: Sequence[DatasetPaths]) -> FoundPhotos:
    """Find the photos of a data set that have masks, and those without a vehicle.

    Raises:
        DatasetError: there are none.
    """
    parts = [_find_in(paths) for paths in located]
    problems = in_order(problem for part in parts for problem in part.problems)
    found = {id_: photo for part in parts for id_, photo in part.found.items()}
    if not found:
        raise DatasetError(_no_pairs(located, problems), problems)
    left_out = sum((Counter(part.left_out) for part in parts), Counter[str]())
    return FoundPhotos(located[0].root, located[0].layout, found, problems, left_out)


def _no_pairs(located: Sequence[DatasetPaths], problems: Sequence[Problem]) -> str:
    photos = sum(len(index_folder(paths.photos).pictures) for paths in located)
    if not photos:
        return f"{located[0].photos}: holds no photos"
    return f"{located[0].root}: none of {photos} photos has a mask. {describe_first(problems)}"


def _find_in(paths: DatasetPaths) -> FoundPhotos:
    photos = index_folder(paths.photos)
    masks = index_folder(paths.masks) if paths.masks else FileIndex({}, {}, [])
    files_of, orphans = _masks_by_photo(photos, masks)
    problems = [*photos.problems, *masks.problems]
    rows: dict[str, str] = {}
    if paths.csv and not photos.pictures.keys() <= files_of.keys():
        rows, row_problems = read_run_lengths(paths.csv)
        problems += row_problems
        similar = SimilarNames(photos.pictures)
        rows = {similar.find(stem) or stem: runs for stem, runs in rows.items()}
        if not masks.pictures:
            orphans += [(stem, paths.csv) for stem in rows if stem not in photos.pictures]
    problems += [_orphan(stem, path, photos, paths) for stem, path in orphans]
    found: dict[str, tuple[Path, Truth]] = {}
    for stem, images in sorted(photos.pictures.items()):
        files = files_of.get(stem, [])
        if len(images) > 1 or len(files) > 1:
            several = [*images, *files] if len(images) > 1 else files
            problems.append(_ambiguous(paths.prefix + stem, several, paths.root))
        elif files or stem in rows:
            found[paths.prefix + stem] = (images[0], files[0] if files else rows[stem])
        else:
            problems.append(_missing_mask(stem, images[0], masks, paths))
    left_out = photos.left_out
    if paths.empty:
        taken = {paths.prefix + stem for stem in photos.pictures}
        without = photos_without(paths.empty, paths.root, f"{paths.prefix}{EMPTY_PHOTOS}/", taken)
        found |= without.found
        problems += without.problems
        left_out += Counter(without.left_out)
    return FoundPhotos(paths.root, paths.layout, found, problems, left_out)


def photos_without(folder: Path, root: Path, prefix: str = "", taken: Collection[str] = ()) -> FoundPhotos:
    """Find photos without a vehicle. prefix: begins their ids. taken: the ids of other photos."""
    photos = index_folder(folder)
    problems = photos.problems
    found: dict[str, tuple[Path, Truth]] = {}
    for stem, images in sorted(photos.pictures.items()):
        id_ = prefix + stem
        if len(images) > 1 or id_ in taken:
            problems.append(_ambiguous(id_, images, root))
        else:
            found[id_] = images[0], None
    return FoundPhotos(root, "folders", found, problems, photos.left_out)


def read_run_lengths(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """Read Carvana's `img,rle_mask` table: photo's name without suffix -> run lengths, and the faults of its rows.

    Raises:
        DatasetError: the file cannot be read, or is not such a table.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: cannot be read as a table (not a plain file)")
    rows: dict[str, str] = {}
    problems = []
    try:
        for number, fields in read_rows(path):
            photo = PurePosixPath(fields[0].strip())
            stem = str(photo.with_suffix("")) if photo.name and as_valid_text(photo.name) == photo.name else ""
            if len(fields) != 2 or not stem:
                where = f"{path.name}, line {number}"
                problems.append(Problem(where, "unreadable", "not a file name, a comma and runs"))
            elif stem in rows:
                cause = f"{path.name} has more than one row for it; the first is used"
                problems.append(Problem(stem, "ambiguous", cause))
            else:
                rows[stem] = fields[1]
    except TableError as error:
        raise DatasetError(str(error)) from error
    return rows, problems


def photo_stems(mask_stem: str) -> tuple[str, str]:
    """Names, without suffix, that the photo of a mask may have; the first is preferred."""
    return mask_stem, mask_stem.removesuffix(MASK_ENDING)


def _masks_by_photo(photos: FileIndex, masks: FileIndex) -> tuple[dict[str, list[Path]], list[tuple[str, Path]]]:
    """Assign every mask file to the photo of the same stem, or else without `_mask`, or else of a similar stem."""
    files_of: dict[str, list[Path]] = {}
    others = []
    for stem, files in masks.pictures.items():
        owner = next((name for name in photo_stems(stem) if name in photos.pictures), None)
        if owner is not None:
            files_of.setdefault(owner, []).extend(files)
        else:
            others.append(stem)
    similar = SimilarNames(photos.pictures.keys() - files_of.keys()) if others else None
    orphans = []
    for stem in others:
        if similar and (owner := similar.find(*photo_stems(stem))) is not None:
            files_of.setdefault(owner, []).extend(masks.pictures[stem])
        else:
            orphans += [(photo_stems(stem)[-1], file) for file in masks.pictures[stem]]
    return files_of, orphans


def _ambiguous(id_: str, files: Sequence[Path], root: Path) -> Problem:
    names = ", ".join(_relative(path, root) for path in files)
    return Problem(id_, "ambiguous", f"several files have this name, keep one: {names}")


def _missing_mask(stem: str, image: Path, masks: FileIndex, paths: DatasetPaths) -> Problem:
    other = masks.others.get(stem) or masks.others.get(stem + MASK_ENDING)
    where = _relative(paths.masks, paths.root) + "/" if paths.masks else CARVANA_CSV
    reason = f"{other[0].name} is not a supported picture file" if other else f"no file of this name in {where}"
    return Problem(_relative(image, paths.root), "missing mask", reason)


def _orphan(stem: str, path: Path, photos: FileIndex, paths: DatasetPaths) -> Problem:
    other = photos.others.get(stem)
    reason = f"{other[0].name} is not a supported picture file" if other else "there is no photo of this name"
    subject = f"{path.name}, row of {stem}" if path == paths.csv else _relative(path, paths.root)
    return Problem(subject, "missing image", reason)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
