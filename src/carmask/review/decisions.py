"""What people decided on a review page, and what becomes of it: lists of photos, or folders with copies."""

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from carmask.errors import CarmaskError, first_few
from carmask.files import atomic_write
from carmask.pipeline.urls import parse_path

Decision = Literal["accept", "reject", "correct"]
# The list, and the folder, of each decision.
GROUPS: dict[Decision, str] = {"accept": "accepted", "reject": "rejected", "correct": "to_correct"}
_COLUMNS = ("name", "decision", "score", "photo", "result")


class BadDecisions(CarmaskError):
    """A table of decisions cannot be used."""


@dataclass(frozen=True)
class Reviewed:
    """The decision on one photo. name: below all photos. photo: its path or URL. result: the file made from it."""

    name: PurePosixPath
    decision: Decision
    photo: str
    result: Path


def read_decisions(path: Path) -> list[Reviewed]:
    """Read a table that a review page exported.

    Raises:
        BadDecisions: with the line that cannot be used.
    """
    try:
        # Line breaks as they are: names may hold some.
        rows = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        table = [(rows.line_num, row) for row in rows]
    except OSError as error:
        raise BadDecisions(
            f"{path}: cannot be read ({error.strerror}); give the decisions.csv that a review page exported"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDecisions(f"{path}: is damaged ({error}); export it again from the review page") from error
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise BadDecisions(f"{path}: is not an export of a review page; its first line needs {','.join(_COLUMNS)}")
    reviewed: dict[PurePosixPath, Reviewed] = {}
    for line_number, row in table:
        name, decision = PurePosixPath(row["name"] or ""), row["decision"]
        where = f"{path}, line {line_number}"
        if decision not in GROUPS:
            raise BadDecisions(f"{where}: decision {decision!r}; allowed are {', '.join(GROUPS)}")
        if not name.name or name.is_absolute() or ".." in name.parts:
            raise BadDecisions(f"{where}: name {row['name']!r} is not a path below a folder")
        if not row["photo"] or not row["result"]:
            raise BadDecisions(f"{where}: names no photo or no result; export it again from the review page")
        if name in reviewed:
            raise BadDecisions(f"{where}: {name} is there twice; keep one of the lines")
        reviewed[name] = Reviewed(name, cast(Decision, decision), str(parse_path(row["photo"])), Path(row["result"]))
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
        if stored := [one.photo for one in reviewed if "://" in one.photo]:
            raise BadDecisions(f"{stored[0]}: is in a store, and --copy copies files alone; leave it out")
        files = [file for one in reviewed for file in (Path(one.photo), one.result)]
        if missing := [str(file) for file in files if not file.is_file()]:
            raise BadDecisions(
                f"{first_few(missing)}: not found; open the review page where it is now and export again"
            )
    counts: dict[Decision, int] = {}
    for decision, group in GROUPS.items():
        chosen = [one for one in reviewed if one.decision == decision]
        counts[decision] = len(chosen)
        with atomic_write(destination / f"{group}.txt") as stream:
            stream.writelines(f"{one.photo}\n".encode() for one in chosen)
        if copy:
            for one in chosen:
                _copy(Path(one.photo), destination / group / "images" / one.name)
                _copy(one.result, destination / group / "masks" / one.name.parent / one.result.name)
    return counts


def _copy(source: Path, target: Path) -> None:
    # The source first: that it cannot be opened is no fault of the target.
    with source.open("rb") as file, atomic_write(target) as stream:
        shutil.copyfileobj(file, stream)
