"""The plan of a run: which photos, which kind of results, and where they are written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.pipeline.jobs import BadDestination, Jobs, Shard, refuse_overwriting_photos
from carmask.pipeline.kinds import (
    JSON_KINDS,
    STREAM,
    TABLE_SUFFIXES,
    TRANSPARENT,
    Kind,
    OutputStyle,
    PhotoKind,
    TableKind,
    choose_format,
    cutout_options,
    is_table,
    refuse_cutout_options,
)
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.render import describe_style, make_render
from carmask.pipeline.sinks import OneFile, Sink, open_folder
from carmask.pipeline.sources import PhotoList
from carmask.pipeline.tables import open_table
from carmask.pipeline.urls import URL

_WHOLE = Shard()
_TABLE_ENDINGS = {Path(f"table{suffix}").suffix for suffixes in TABLE_SUFFIXES.values() for suffix in suffixes}


@dataclass(frozen=True)
class Plan:
    """Which photos to do, and where their results go. Nothing has been written yet.

    destination: a folder, the file of a single result, or the file of a table. output: how each photo's result looks,
    or the kind of the table.
    """

    jobs: Jobs
    destination: Path
    output: OutputStyle | TableKind
    shard: Shard

    @property
    def of_one(self) -> bool:
        """Whether the destination is the file of a single photo's result."""
        return self.jobs.photos.alone and isinstance(self.output, OutputStyle)

    @property
    def failures_file(self) -> Path | None:
        """The list of photos that failed; none for a single photo."""
        return self._beside("failures", ".csv")

    @property
    def no_vehicle_file(self) -> Path | None:
        """The list of photos in which no vehicle was found; none for a single photo."""
        return self._beside("no_vehicle", ".txt")

    @contextmanager
    def open_sink(self, provenance: Provenance, *, overwrite: bool) -> Iterator[Sink]:
        """Open what takes the results. `provenance` is how masks are made; the plan adds how they are written.

        Raises:
            CarmaskError: the destination holds other results or files, or cannot be written.

        """
        if not isinstance(self.output, OutputStyle):
            whole = {"kind": self.output, **provenance}
            with open_table(self.destination, self.jobs, whole, self.output, overwrite=overwrite) as table:
                yield table
            return
        render = make_render(self.output, self.destination, of_one=self.of_one)
        if self.of_one:
            yield OneFile(self.destination, self.jobs, render)
            return
        whole = {**describe_style(self.output), **provenance}
        with open_folder(self.destination, self.jobs, whole, render, shard=self.shard, overwrite=overwrite) as folder:
            yield folder

    def _beside(self, stem: str, suffix: str) -> Path | None:
        if self.of_one:
            return None
        if not isinstance(self.output, OutputStyle):
            return self.destination.with_name(f"{self.destination.name}.{stem}{suffix}")
        return self.destination / f"{stem}{self.shard.suffix}{suffix}"


def plan_outputs(
    photos: PhotoList,
    destination: Path,
    kind: Kind,
    *,
    picture_format: PictureFormat | None = None,
    background: str = TRANSPARENT,
    crop: bool = False,
    shard: Shard = _WHOLE,
) -> Plan:
    """Name the results of these photos.

    Args:
        photos: All photos, of every shard.
        destination: A folder, the name of one result, or that of a table; `-` for standard output.
        kind: What results show.
        picture_format: Of results that show the photo; without it, what the destination's name means.
        background: Of cut-outs.
        crop: Whether cut-outs are cropped to the vehicle.
        shard: Which part of the photos.

    Raises:
        CarmaskError: the options contradict each other, or the destination cannot hold the results.

    """
    picture_format = choose_format(picture_format, kind, destination)
    if photos.alone and shard.count > 1:
        raise CarmaskError(
            f"--shard {shard.number}/{shard.count}: divides many photos, but {photos.names[0]} is one; leave it out"
        )
    if is_table(kind):
        path = _table_path(kind, destination, shard.suffix)
        refuse_cutout_options(kind, cutout_options(background, crop))
        return Plan(Jobs.plan(photos, path.suffix, shard), path, cast(TableKind, kind), shard)
    style = OutputStyle(cast(PhotoKind, kind), picture_format, background, crop)
    suffix = ".json" if kind in JSON_KINDS else f".{picture_format}"
    jobs = Jobs.plan(photos, suffix, shard)
    place = destination
    if not _names_one_result(destination, suffix, of_one=photos.alone):
        if photos.data is not None:
            raise CarmaskError(f"{destination}: a photo from standard input has no name; give the name of its result")
        if photos.alone:
            place = destination / jobs.at(0).result
    if kind == "labelme" and (photos.data is not None or isinstance(photos.root, URL)):
        raise CarmaskError("--kind labelme: refers to the photo's file; a photo from standard input or a URL has none")
    if place.exists() and photos.data is None:
        refuse_overwriting_photos(jobs, lambda job: place if photos.alone else place / job.result)
    return Plan(jobs, place, style, shard)


def _table_path(kind: Kind, destination: Path, shard_suffix: str) -> Path:
    """Return the file of a table, with a shard's number before the ending.

    Raises:
        BadDestination: it is not the name of such a table.

    """
    suffixes = TABLE_SUFFIXES[kind]
    ending = next((suffix for suffix in reversed(suffixes) if destination.name.lower().endswith(suffix)), None)
    if ending is None or destination == STREAM or destination.is_dir():
        raise BadDestination(
            f"{destination}: {kind} is one file for all photos; give it a name that ends in {' or '.join(suffixes)}"
        )
    stem = destination.name[: -len(ending)]
    return destination.with_name(f"{stem}{shard_suffix}{destination.name[len(stem) :]}")


def _names_one_result(destination: Path, suffix: str, *, of_one: bool) -> bool:
    """Whether the destination is the name of one result, and not a folder for results.

    Raises:
        BadDestination: it is neither, or one name is given for the results of many photos.

    """
    if destination == STREAM:
        if not of_one:
            raise BadDestination("standard output takes the result of one photo; choose a folder for those of many")
        return True
    try:
        exists, is_folder = True, destination.is_dir()
        destination.stat()
    except FileNotFoundError:
        exists = is_folder = False
    except OSError as error:
        raise BadDestination(f"{destination}: cannot be used ({error.strerror}); choose another destination") from error
    ending = destination.suffix.lower()
    looks_like_file = ending in {*IMAGE_SUFFIXES, *_TABLE_ENDINGS}
    if is_folder:
        return False
    if not of_one and (exists or looks_like_file):
        raise BadDestination(f"{destination}: is not a folder; choose a folder for the results of many photos")
    if ending == suffix:
        return True
    if exists or looks_like_file:
        wanted = suffix.removeprefix(".").upper()
        raise BadDestination(f"{destination}: results are {wanted}; use a name that ends in {suffix}, or a folder")
    return False
