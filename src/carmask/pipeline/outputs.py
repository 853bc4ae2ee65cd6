"""From what a user asks for to a plan: which photos, which kind of results, and where they go."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.pipeline.jobs import BadDestination, Jobs, Shard, refuse_overwriting_photos
from carmask.pipeline.journal import Provenance
from carmask.pipeline.kinds import (
    STREAM,
    TABLE_SUFFIXES,
    Kind,
    PhotoKind,
    TableKind,
    choose_format,
    choose_kind,
    is_picture,
    is_table,
    result_suffix,
)
from carmask.pipeline.render import OutputStyle, make_render
from carmask.pipeline.sinks import OneFile, Sink, open_folder
from carmask.pipeline.sources import PhotoList, find_photos, find_photos_of_all
from carmask.pipeline.summary import Lists
from carmask.pipeline.tables import TABLES, open_table
from carmask.pipeline.urls import URL

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


@dataclass(frozen=True)
class Wanted:
    """What a user asks for: the kind of results and how they style. Nothing stands for what the names say."""

    kind: Kind | None = None
    picture_format: PictureFormat | None = None
    background: str = "transparent"
    crop: bool = False
    shard: Shard = field(default_factory=Shard)


@dataclass(frozen=True)
class Plan:
    """Which photos are done, and where their results go. Nothing has been written yet.

    destination: a folder, the file of one result, or the file of a table. style: nothing for tables.
    """

    kind: Kind
    jobs: Jobs
    destination: Path
    of_one: bool
    style: OutputStyle | None
    shard: Shard

    @property
    def lists(self) -> Lists:
        """Where failures and photos without a vehicle are listed."""
        if self.of_one:
            return Lists()
        if is_table(self.kind):
            name = self.destination.name
            return Lists(
                self.destination.with_name(f"{name}.failures.csv"), self.destination.with_name(f"{name}.no_vehicle.txt")
            )
        suffix = self.shard.suffix
        return Lists(self.destination / f"failures{suffix}.csv", self.destination / f"no_vehicle{suffix}.txt")

    @contextmanager
    def open_sink(self, recipe: Provenance, *, overwrite: bool) -> Iterator[Sink]:
        """Open what takes the results. `recipe` says how they are made, beside what the plan says itself.

        Raises:
            CarmaskError: what is there already is in the way, or cannot be written.

        """
        if self.style is None:
            table = TABLES[cast(TableKind, self.kind)]()
            table.check(self.jobs)
            whole = {"kind": self.kind, **recipe}
            with open_table(self.destination, self.jobs, whole, table, overwrite=overwrite) as store:
                yield store
            return
        render = make_render(self.style, self.destination, of_one=self.of_one)
        if self.of_one:
            yield OneFile(self.destination, self.jobs, render)
            return
        whole = {**self.style.describe(), **recipe}
        with open_folder(self.destination, self.jobs, whole, render, shard=self.shard, overwrite=overwrite) as folder:
            yield folder


def make_plan(
    sources: Sequence[Path | URL],
    destination: Path,
    wanted: Wanted,
    *,
    read_stdin: Callable[[], bytes] | None = None,
) -> Plan:
    """List the photos and name their results.

    Args:
        sources: One, see `find_photos`, or several files and folders.
        destination: A folder, the name of one result, or that of a table; `-` for standard output.
        wanted: What is made.
        read_stdin: Gives all of standard input.

    Raises:
        CarmaskError: there are no photos, or what is asked for does not go together.

    """
    kind = choose_kind(wanted.kind, destination)
    # Results that are no pictures may lie among the photos: LabelMe looks for them there.
    results = destination if is_picture(kind) else None
    if len(sources) == 1:
        photos = find_photos(sources[0], results=results, read_stdin=read_stdin)
    else:
        photos = find_photos_of_all(sources, results=results)
    return plan_for(photos, destination, kind, wanted)


def plan_for(photos: PhotoList, destination: Path, kind: Kind, wanted: Wanted) -> Plan:
    """Name the results of these photos. See `make_plan`."""
    picture_format = choose_format(wanted.picture_format, kind, destination)
    shard = wanted.shard
    if photos.alone and shard.count > 1:
        raise CarmaskError(
            f"--shard {shard.number}/{shard.count}: divides many photos, and {photos.names[0]} is one; leave it out"
        )
    if is_table(kind):
        path = table_path(kind, destination, shard.suffix)
        if wanted.crop or wanted.background != "transparent":
            raise CarmaskError(f"--crop and --background: are for --kind cutout, not {kind}")
        return Plan(kind, Jobs.plan(photos, path.suffix, shard), path, False, None, shard)
    style = OutputStyle(cast(PhotoKind, kind), picture_format, wanted.background, wanted.crop)
    suffix = result_suffix(kind, picture_format)
    jobs = Jobs.plan(photos, suffix, shard)
    if names_one_result(destination, suffix, of_one=photos.alone):
        place = destination
    elif photos.data is not None:
        raise CarmaskError(f"{destination}: a photo from standard input has no name; name its result")
    else:
        place = destination / jobs[0].result if photos.alone else destination
    if kind == "labelme" and (photos.data is not None or isinstance(photos.root, URL)):
        raise CarmaskError(
            "--kind labelme: names the photo's file, and a photo from standard input or a store has none"
        )
    if place.exists() and photos.data is None:
        refuse_overwriting_photos(jobs, lambda job: place if photos.alone else place / job.result)
    return Plan(kind, jobs, place, photos.alone, style, shard)
