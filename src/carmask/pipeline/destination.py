"""What kind of place a destination is: one result's file, a folder, a table's file or standard output."""

from pathlib import Path

from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.pipeline.jobs import BadDestination
from carmask.pipeline.kinds import STREAM, TABLE_SUFFIXES, Kind

_TABLE_ENDINGS = {Path(f"table{suffix}").suffix for suffixes in TABLE_SUFFIXES.values() for suffix in suffixes}


def table_path(kind: Kind, destination: Path, shard_suffix: str) -> Path:
    """Return the file of a table; parts of it have their number before the ending.

    Raises:
        BadDestination: it is not the name of such a table.

    """
    suffixes = TABLE_SUFFIXES[kind]
    ending = next((suffix for suffix in reversed(suffixes) if destination.name.lower().endswith(suffix)), None)
    if ending is None or destination == STREAM or destination.is_dir():
        raise BadDestination(
            f"{destination}: {kind} is one file for all photos; give a name that ends in {' or '.join(suffixes)}"
        )
    stem = destination.name[: -len(ending)]
    return destination.with_name(f"{stem}{shard_suffix}{destination.name[len(stem) :]}")


def names_one_result(destination: Path, suffix: str, *, of_one: bool) -> bool:
    """Whether the destination is the name of one result, and not a folder for results.

    Raises:
        BadDestination: it is neither, or one name is given for the results of many photos.

    """
    if destination == STREAM:
        if not of_one:
            raise BadDestination("standard output takes the result of one photo; name a folder for those of many")
        return True
    try:
        is_there, is_folder = True, destination.is_dir()
        destination.stat()
    except FileNotFoundError:
        is_there = is_folder = False
    except OSError as error:
        raise BadDestination(
            f"{destination}: cannot be used ({error.strerror}); name another place for the results"
        ) from error
    ending = destination.suffix.lower()
    looks_like_file = ending in {*IMAGE_SUFFIXES, *_TABLE_ENDINGS}
    if is_folder:
        return False
    if not of_one and (is_there or looks_like_file):
        raise BadDestination(f"{destination}: is no folder; name a folder for the results of many photos")
    if ending == suffix:
        return True
    if is_there or looks_like_file:
        wanted = suffix.removeprefix(".").upper()
        raise BadDestination(f"{destination}: results are {wanted}; give a name that ends in {suffix}, or a folder")
    return False
