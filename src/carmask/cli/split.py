"""`carmask split`."""

from pathlib import Path
from statistics import fmean

from carmask.cli.console import print_problems, print_remark, print_table
from carmask.cli.options import DataOptions
from carmask.data.check import measure_areas
from carmask.data.own_split import find_own_split
from carmask.data.split import FOLDS, Split, make_fold_splits, make_split
from carmask.errors import CarmaskError
from carmask.progress import progress_bar

_OPTIONS = DataOptions()


def split(
    data: Path,
    *,
    folds: int | None = None,
    fold: int | None = None,
    fraction: float | None = None,
    all_folds: bool = False,
    seed: int | None = None,
    options: DataOptions = _OPTIONS,
    out: Path | None = None,
) -> int:
    """Divide photos into training and held-out photos, by group, with similar mask areas on both sides.

    If the data set has its own split, in folders or lists train and val, the command uses it unless you give an option
    that divides. The exit status is 2 if photos are left out because they have no readable mask.

    Args:
        data: Folder in Carvana's layout, or with images/, masks/ and perhaps no_vehicle/. Or a folder with label files
            of COCO, LabelMe, CVAT, Label Studio, YOLO, Pascal VOC or Supervisely, or one such file.
        folds: Number of folds, of which one is held out. Default: 5.
        fold: The fold that is held out, from 0. Default: 0.
        fraction: Hold out this share of the photos instead of a fold, for example 0.2; 0 holds out none.
        all_folds: Write one split for each fold: fold_0.json, fold_1.json, ...
        seed: Seed of the split. The same photos, masks and seed give the same split. Default: 0.
        options: How photos and masks are found and read.
        out: File to write. Default: split.json. With --all-folds, the folder to write to. Default: folds/.
    """
    if all_folds and fraction is not None:
        raise CarmaskError("--all-folds and --fraction cannot be combined: a fraction is a single split")
    if fraction is not None and (folds is not None or fold is not None):
        raise CarmaskError(
            "--fraction cannot be combined with --fold or --folds: the fraction is held out instead of a fold"
        )
    if all_folds and fold is not None:
        raise CarmaskError("--all-folds and --fold cannot be combined: --all-folds holds out every fold in turn")
    if all_folds and out is not None and out.suffix == ".json":
        raise CarmaskError(f"--out {out}: must be a folder with --all-folds, which writes a file for each fold")
    dataset = options.find(data)
    with progress_bar("measuring masks") as progress:
        area_of, unreadable = measure_areas(dataset.pairs, progress=progress)
    group_of = {id_: group for id_, group in dataset.group_of.items() if id_ in area_of}
    left_out = (*dataset.problems, *unreadable)
    print_problems(left_out)

    is_free = {folds, fold, fraction, seed} == {None} and not all_folds
    own = find_own_split(dataset, area_of) if is_free else None
    folds, seed = FOLDS if folds is None else folds, seed or 0
    if own is not None:
        print_remark(f"Divided {own.method}; to divide anew, give --folds, --fraction or --seed.")
        files = {out or Path("split.json"): own}
    elif all_folds:
        folder = out or Path("folds")
        made = make_fold_splits(group_of, area_of, folds=folds, seed=seed)
        files = {folder / f"fold_{number}.json": split for number, split in enumerate(made)}
    else:
        one = make_split(group_of, area_of, folds=folds, fold=fold or 0, fraction=fraction, seed=seed)
        files = {out or Path("split.json"): one}
    for path, split_ in files.items():
        split_.save(path)
    _print_sides(files, area_of)
    return 2 if left_out else 0


def _print_sides(files: dict[Path, Split], area_of: dict[str, float]) -> None:
    rows = []
    for path, split_ in files.items():
        for name, ids in (("train", split_.train), ("validation", split_.validation)):
            groups = len({split_.group_of[id_] for id_ in ids})
            area = f"{fmean(area_of[id_] for id_ in ids):.2%}" if ids else ""
            rows.append([str(path), name, str(groups), str(len(ids)), area])
    print_table("photos on each side", ("file", "side"), ("groups", "photos", "mean mask area"), rows)
