"""List the photos of a source: a file, a folder, a pattern, a list of paths, a Parquet table, or standard input."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from carmask.files import expand_home
from carmask.pipeline.kinds import STREAM, TABLE_SUFFIXES
from carmask.pipeline.path_lists import is_list, list_paths, read_list, read_parquet
from carmask.pipeline.photo_list import PhotoFailure, PhotoList, SourceError
from carmask.pipeline.urls import URL
from carmask.pipeline.walk import is_pattern, list_folder, list_pattern, list_url

_LIST_SUFFIX = ".txt"


def find_photos(
    source: Path | URL,
    *,
    results: Path | URL | None,
    read_stdin: Callable[[], bytes] | None = None,
    with_results: bool = False,
) -> PhotoList:
    """List the photos of a source.

    Args:
        source: A photo; a folder, with all its sub-folders; a pattern with `*`, `?`, `[...]` or `**` (its results
            mirror the tree below the part before the first of these); a list, a `.txt` file of one path a line,
            relative to the working folder or else to the list's own, without blank lines and lines that begin with #
            (its results mirror the tree below the folder that holds all its photos); a `.parquet` table, whose column
            `path` is such a list; or `-`, a photo or such a list on standard input, whose paths may also end with NUL.
            All but patterns may be URLs that fsspec reads, and so may paths in lists.
        results: The folder that pictures will be written to. Pictures in it are results, not photos.
        read_stdin: Returns all of standard input.
        with_results: Include folders below the source that hold results of carmask: of masks they are as good as any.

    Raises:
        SourceError: there are none, they cannot be listed, or `results` is the folder of the photos itself.
        URLError: a URL cannot be read.
        ImportError: a URL needs fsspec, or a table pyarrow.
    """
    if isinstance(source, Path):
        source = Path(expand_home(str(source)))
    if source == STREAM:
        return _from_stream(read_stdin() if read_stdin else b"")
    stored = results if isinstance(results, URL) else None
    results = results if isinstance(results, Path) else None
    if isinstance(source, Path) and not source.exists():
        if is_pattern(str(source)):
            return list_pattern(str(source), results, with_results)
        raise SourceError(f"{source}: does not exist; give a photo, a folder or a list of photos")
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES["parquet"]:
        return list_paths(read_parquet(source), str(source), beside=source.parent)
    if isinstance(source, Path) and source.is_dir():
        return list_folder(source, results, with_results)
    if suffix == _LIST_SUFFIX:
        return list_paths(read_list(source.read_bytes()), str(source), beside=source.parent)
    if isinstance(source, Path) or not source.is_folder():
        return PhotoList(source.parent, (source.name,), alone=True)
    return list_url(source, stored)


def find_photos_of_all(
    sources: Sequence[Path | URL], *, results: Path | URL | None, read_stdin: Callable[[], bytes] | None = None
) -> PhotoList:
    """List the photos of one source, or of several files and folders below the folder that holds them all.

    Raises:
        SourceError: there are none, or `results` is one of the folders.
        URLError: a URL cannot be read.
    """
    if len(sources) == 1:
        return find_photos(sources[0], results=results, read_stdin=read_stdin)
    paths: list[str] = []
    unlisted: list[PhotoFailure] = []
    skipped: list[Path | URL] = []
    left_out: Counter[str] = Counter()
    for source in sources:
        if isinstance(source, Path) and not source.is_dir():
            paths.append(str(source))
            continue
        found = find_photos(source, results=results)
        paths += [str(found.locate(name)) for name in found.names]
        unlisted += found.unlisted
        skipped += found.skipped
        left_out.update(found.left_out)
    listed = list_paths(paths, "sources", beside=None)
    return replace(listed, unlisted=tuple(unlisted), skipped=tuple(skipped), left_out=left_out)


def _from_stream(data: bytes) -> PhotoList:
    if not data:
        raise SourceError("standard input: is empty; pipe a photo or a list of photos into it")
    if is_list(data):
        return list_paths(read_list(data), "standard input", beside=None)
    return PhotoList(Path(), ("standard input",), alone=True, data=data)
