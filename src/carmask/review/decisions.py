"""What people decided on a review page, and what becomes of it: lists of photos, or folders with copies."""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from carmask.errors import CarmaskError
from carmask.files import atomic_write

Decision = Literal["accept", "reject", "correct"]
# The list, and the folder, of each decision.
GROUPS: dict[Decision, str] = {"accept": "accepted", "reject": "rejected", "correct": "to_correct"}
_COLUMNS = ("name", "decision", "score", "photo", "result")


class BadDecisions(CarmaskError):
    """A table of decisions cannot be used."""


@dataclass(frozen=True)
class Reviewed:
    """The decision on one photo. name: below the folder of all photos. result: the file made from it."""

    name: PurePosixPath
    decision: Decision
    photo: Path
    result: Path


def read_decisions(path: Path) -> list[Reviewed]:
    """Read a table that a review page exported.

    Raises:
        BadDecisions: with the line that cannot be used.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDecisions(f"{path}: cannot be read ({error}); export it again from the review page") from error
    rows = csv.DictReader(text.splitlines(keepends=True))
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise BadDecisions(f"{path}: is not an export of a review page; its first line needs {','.join(_COLUMNS)}")
    reviewed: dict[PurePosixPath, Reviewed] = {}
    for row in rows:
        name, decision = PurePosixPath(row["name"] or ""), row["decision"]
        where = f"{path}, line {rows.line_num}"
        if decision not in GROUPS:
            raise BadDecisions(f"{where}: decision {decision!r}; allowed are {', '.join(GROUPS)}")
        if not name.name or name.is_absolute() or ".." in name.parts:
            raise BadDecisions(f"{where}: name {row['name']!r} is not a path below a folder")
        if name in reviewed:
            raise BadDecisions(f"{where}: {name} is there twice; keep one of the lines")
        reviewed[name] = Reviewed(name, cast(Decision, decision), Path(row["photo"] or ""), Path(row["result"] or ""))
    return list(reviewed.values())


def apply_decisions(reviewed: Sequence[Reviewed], destination: Path, *, copy: bool) -> dict[Decision, int]:
    """Write a list of the photos of each decision, `accepted.txt` and so on, and with `copy` folders with the files.

    A folder has the photos below `images` and their results below `masks`, as `carmask train` reads them. Lists of
    an earlier call are replaced; folders never, since people correct what is in them.

    Returns:
        How many photos there are of each decision.

    Raises:
        BadDecisions: a photo or a result is not there any more, or a folder is there already; nothing was written.
        UnwritableFile: a file cannot be written.

    """
    if copy:
        folders = [destination / group for group in GROUPS.values()]
        if there := [folder for folder in folders if folder.exists()]:
            raise BadDecisions(
                f"{there[0]}: is there already and may hold corrections; move it away, or name another destination"
            )
        files = [file for one in reviewed for file in (one.photo, one.result)]
        if missing := [file for file in files if not file.is_file()]:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise BadDecisions(
                f"{missing[0]}{others}: not found; open the review page where it is now and export again"
            )
    counts: dict[Decision, int] = {}
    for decision, group in GROUPS.items():
        chosen = [one for one in reviewed if one.decision == decision]
        counts[decision] = len(chosen)
        with atomic_write(destination / f"{group}.txt") as stream:
            stream.writelines(f"{one.photo}\n".encode() for one in chosen)
        if copy:
            for one in chosen:
                _copy(one.photo, destination / group / "images" / one.name)
                _copy(one.result, destination / group / "masks" / one.name.parent / one.result.name)
    return counts


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as stream, source.open("rb") as file:
        shutil.copyfileobj(file, stream)
