"""From what a user asked for to jobs, and the store that takes their results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.pipeline.addresses import Address
from carmask.pipeline.destination import names_one_result, table_path
from carmask.pipeline.folder import open_folder
from carmask.pipeline.jobs import Jobs, Shard, refuse_overwriting_photos
from carmask.pipeline.journal import Recipe
from carmask.pipeline.kinds import (
    Kind,
    PhotoKind,
    TableKind,
    choose_format,
    choose_kind,
    is_picture,
    is_table,
    result_suffix,
)
from carmask.pipeline.photos import Photos, find_photos, find_photos_of_all
from carmask.pipeline.render import Look, make_render
from carmask.pipeline.report import Lists
from carmask.pipeline.stores import OneFile, Store
from carmask.pipeline.table_file import open_table
from carmask.pipeline.tables import TABLES


@dataclass(frozen=True)
class Wanted:
    """What a user asks for: the kind of results and how they look. Nothing stands for what the names say."""

    kind: Kind | None = None
    picture_format: PictureFormat | None = None
    background: str = "transparent"
    crop: bool = False
    shard: Shard = field(default_factory=Shard)


@dataclass(frozen=True)
class Plan:
    """Which photos are done, and where their results go. Nothing has been written yet.

    destination: a folder, the file of one result, or the file of a table. look: nothing for tables.
    """

    kind: Kind
    jobs: Jobs
    destination: Path
    of_one: bool
    look: Look | None
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
    def open_store(self, recipe: Recipe, *, overwrite: bool) -> Iterator[Store]:
        """Open what takes the results. `recipe` says how they are made, beside what the plan says itself.

        Raises:
            CarmaskError: what is there already is in the way, or cannot be written.

        """
        if self.look is None:
            table = TABLES[cast(TableKind, self.kind)]()
            table.check(self.jobs)
            whole = {"kind": self.kind, **recipe}
            with open_table(self.destination, self.jobs, whole, table, overwrite=overwrite) as store:
                yield store
            return
        render = make_render(self.look, self.destination, of_one=self.of_one)
        if self.of_one:
            yield OneFile(self.destination, self.jobs, render)
            return
        whole = {**self.look.describe(), **recipe}
        with open_folder(self.destination, self.jobs, whole, render, shard=self.shard, overwrite=overwrite) as folder:
            yield folder


def make_plan(
    sources: Sequence[Path | Address],
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


def plan_for(photos: Photos, destination: Path, kind: Kind, wanted: Wanted) -> Plan:
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
    look = Look(cast(PhotoKind, kind), picture_format, wanted.background, wanted.crop)
    suffix = result_suffix(kind, picture_format)
    jobs = Jobs.plan(photos, suffix, shard)
    if names_one_result(destination, suffix, of_one=photos.alone):
        place = destination
    elif photos.data is not None:
        raise CarmaskError(f"{destination}: a photo from standard input has no name; name its result")
    else:
        place = destination / jobs[0].result if photos.alone else destination
    if kind == "labelme" and (photos.data is not None or isinstance(photos.root, Address)):
        raise CarmaskError(
            "--kind labelme: names the photo's file, and a photo from standard input or a store has none"
        )
    if place.exists() and photos.data is None:
        refuse_overwriting_photos(jobs, lambda job: place if photos.alone else place / job.result)
    return Plan(kind, jobs, place, photos.alone, look, shard)
