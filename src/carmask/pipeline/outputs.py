"""The plan of a run: which photos, which kind of results, and where they are written."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.imaging.look import PLAIN_LOOK, Look
from carmask.pipeline.jobs import BadDestination, Job, Jobs, Shard, refuse_overwriting_photos
from carmask.pipeline.kinds import (
    OF_FILE,
    OF_PHOTO,
    STREAM,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    Kind,
    OutputStyle,
    PhotoKind,
    TableKind,
    is_table,
    refuse_cutout_options,
    refuse_file_options,
)
from carmask.pipeline.photo_list import PhotoList
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.render import describe_style, load_background, make_render
from carmask.pipeline.sinks import OneFile, Sink, open_folder
from carmask.pipeline.stores import open_store_folder, open_store_table
from carmask.pipeline.tables import open_table
from carmask.pipeline.urls import URL

_WHOLE = Shard()
_FORMATS: dict[str, PictureFormat] = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".avif": "avif",
    ".tif": "tiff",
    ".tiff": "tiff",
}
_TABLE_ENDINGS = {Path(f"table{suffix}").suffix for suffixes in TABLE_SUFFIXES.values() for suffix in suffixes}


@dataclass(frozen=True)
class Plan:
    """Which photos to do, and where their results go. Nothing has been written yet.

    destination: a folder, the file of a single result, or the file of a table. output: how each photo's result looks,
    or the kind of the table.
    """

    jobs: Jobs
    destination: Path | URL
    output: OutputStyle | TableKind
    shard: Shard

    @property
    def of_one(self) -> bool:
        """Whether the destination is the file of a single photo's result."""
        return self.jobs.photos.alone and isinstance(self.output, OutputStyle)

    def list_file(self, stem: Literal["failures", "no_vehicle", "review"]) -> Path | URL | None:
        """Return the file that lists photos that failed, without a vehicle, or to review; None for a single photo."""
        suffix = {"failures": ".csv", "no_vehicle": ".txt", "review": ".html"}[stem]
        if self.of_one:
            return None
        if not isinstance(self.output, OutputStyle):
            return self.destination.with_name(f"{self.destination.name}.{stem}{suffix}")
        return self.destination / f"{stem}{self.shard.suffix}{suffix}"

    def result_of(self, job: Job) -> Path | URL:
        """Return the file that takes the result of a photo."""
        is_folder = isinstance(self.output, OutputStyle) and not self.of_one
        return self.destination / job.result if is_folder else self.destination

    def whole_provenance(self, provenance: Provenance) -> Provenance:
        """Return how masks are made, as given, and how they are written."""
        written = describe_style(self.output) if isinstance(self.output, OutputStyle) else {"kind": self.output}
        return {**written, **provenance}

    def open_sink(self, provenance: Provenance, *, overwrite: bool) -> AbstractContextManager[Sink]:
        """Open what takes the results. `provenance` is how masks are made; the plan adds how they are written.

        Raises:
            CarmaskError: the destination holds other results or files, or cannot be written.
        """
        path, jobs, output = self.destination, self.jobs, self.output
        if not isinstance(output, OutputStyle):
            whole = self.whole_provenance(provenance)
            if isinstance(path, URL):
                return open_store_table(path, jobs, whole, output, overwrite=overwrite)
            return open_table(path, jobs, whole, output, overwrite=overwrite)
        render = make_render(output, path, of_one=self.of_one)
        if self.of_one:
            return nullcontext(OneFile(jobs, (), {}, path, render))
        whole = self.whole_provenance(provenance)
        if isinstance(path, URL):
            return open_store_folder(path, jobs, whole, render, shard=self.shard, overwrite=overwrite)
        beside = {}
        if output.kind == "yolo":
            from carmask.labels.yolo import yolo_data

            beside["data.yaml"] = yolo_data(os.path.relpath(str(jobs.photos.root), path)).encode()
        return open_folder(path, jobs, whole, render, beside, shard=self.shard, overwrite=overwrite)


def plan_outputs(
    photos: PhotoList,
    destination: Path | URL,
    kind: Kind,
    *,
    look: Look = PLAIN_LOOK,
    shard: Shard = _WHOLE,
) -> Plan:
    """Name the results of these photos.

    Args:
        photos: All photos, of every shard.
        destination: A folder, the name of one result, or that of a table, also in a store; `-` for standard output.
        kind: What results show.
        look: How cut-outs look. Of other results that show the photo it has the format; where it has none, the
            destination's name says it, and else it is PNG.
        shard: Which part of the photos.

    Raises:
        CarmaskError: the options contradict each other, or the destination cannot hold the results.
    """
    if isinstance(destination, URL):
        _check_store(destination, kind, look)
    given = look.model_fields_set
    values = {name: getattr(look, name) for name in OF_FILE if name in given}
    refuse_file_options(kind, (f"--{name}" if value is True else f"--{name} {value}" for name, value in values.items()))
    refuse_cutout_options(kind, (f"--{name}" for name in Look.model_fields if name in given - {*OF_FILE}))
    if look.scale == "same-car" and shard.count > 1:
        raise CarmaskError("--scale same-car: needs all photos of a car; leave out --shard")
    if photos.alone and shard.count > 1:
        raise CarmaskError(
            f"--shard {shard.number}/{shard.count}: divides many photos, but {photos.names[0]} is one; leave it out"
        )
    if is_table(kind):
        path = _table_path(kind, destination, shard.suffix)
        return Plan(Jobs.plan(photos, path.suffix, shard), path, cast(TableKind, kind), shard)
    if "format" not in given and kind in OF_PHOTO and (named := _FORMATS.get(destination.suffix.lower())):
        look = look.changed({"format": named})
    style = OutputStyle(cast(PhotoKind, kind), look)
    # A mistyped one is refused now, before a network is loaded.
    load_background(style)
    suffix = TEXT_SUFFIXES.get(kind, f".{look.format}")
    jobs = Jobs.plan(photos, suffix, shard)
    if not _names_one_result(destination, suffix, of_one=photos.alone):
        jobs = replace(jobs, folder="labels/" if kind == "yolo" else "")
        if photos.data is not None:
            raise CarmaskError(f"{destination}: a photo from standard input has no name; give the name of its result")
        if photos.alone:
            destination = destination / jobs.at(0).result
    if kind == "labelme" and (photos.data is not None or isinstance(photos.root, URL)):
        raise CarmaskError("--kind labelme: refers to the photo's file; a photo from standard input or a URL has none")
    plan = Plan(jobs, destination, style, shard)
    if photos.data is None and (isinstance(destination, URL) or destination.exists()):
        refuse_overwriting_photos(jobs, plan.result_of)
    return plan


def _check_store(destination: URL, kind: Kind, look: Look) -> None:
    destination.require_store()
    if kind in ("labelme", "yolo"):
        raise CarmaskError(f"{destination}: --kind {kind} refers to the photos' files; choose a folder for the results")
    if look.scale == "same-car":
        raise CarmaskError(f"{destination}: --scale same-car takes a folder for the results; copy them afterwards")


def _table_path(kind: Kind, destination: Path | URL, shard_suffix: str) -> Path | URL:
    """Return the file of a table, with a shard's number before the ending.

    Raises:
        BadDestination: it is not the name of such a table.
    """
    suffixes = TABLE_SUFFIXES[kind]
    ending = next((suffix for suffix in reversed(suffixes) if destination.name.lower().endswith(suffix)), None)
    if ending is None or (isinstance(destination, Path) and destination.is_dir()):
        raise BadDestination(
            f"{destination}: {kind} is one file for all photos; give it a name that ends in {' or '.join(suffixes)}"
        )
    stem = destination.name[: -len(ending)]
    return destination.with_name(f"{stem}{shard_suffix}{destination.name[len(stem) :]}")


def _names_one_result(destination: Path | URL, suffix: str, *, of_one: bool) -> bool:
    """Whether the destination is the name of one result, and not a folder for results.

    Raises:
        BadDestination: it is neither, or one name is given for the results of many photos.
    """
    if destination == STREAM:
        if not of_one:
            raise BadDestination("standard output takes the result of one photo; choose a folder for those of many")
        return True
    local = destination if isinstance(destination, Path) else None
    if local is not None and local.is_dir():
        return False
    ending = destination.suffix.lower()
    if of_one and suffix in (ending, f".{_FORMATS.get(ending)}"):
        return True
    if (local is not None and local.exists()) or ending in {*IMAGE_SUFFIXES, *_TABLE_ENDINGS}:
        wanted = suffix.removeprefix(".").upper()
        raise BadDestination(
            f"{destination}: results are {wanted}; use a name that ends in {suffix}, or a folder"
            if of_one
            else f"{destination}: is not a folder; choose a folder for the results of many photos"
        )
    return False
