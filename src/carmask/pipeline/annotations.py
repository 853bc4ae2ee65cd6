"""Results of all photos in one label file: COCO, CVAT and Label Studio."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.files import BinaryWriter
from carmask.imaging.rle import encode_coco
from carmask.labels.cvat import cvat_lines
from carmask.labels.label_studio import label_studio_task
from carmask.pipeline.jobs import Job
from carmask.pipeline.journal import Entry

# The rows in the order of the photos, as often as it is called.
Rows = Callable[[], Iterator[tuple[Job, Entry]]]


def write_cvat(stream: BinaryWriter, rows: Rows) -> None:
    """Write an XML file of CVAT for images; CVAT finds photos by their names."""
    for line in cvat_lines((job.position, job.name, entry["row"]) for job, entry in rows()):
        stream.write(line.encode("utf-8", "backslashreplace"))


def write_label_studio(stream: BinaryWriter, rows: Rows) -> None:
    """Write tasks with a prediction each, whose score is the expected Dice."""
    stream.write(b"[\n")
    tasks = (
        label_studio_task(job.position + 1, job.name, entry["row"], entry.get("expected_dice")) for job, entry in rows()
    )
    _write_items(stream, tasks)
    stream.write(b"]\n")


# COCO: one annotation for each photo in which a vehicle was found. Ids are the positions of the photos, from 1, in the
# whole list: parts made by --shard can be joined. `iscrowd` is 0 although the masks are run lengths, as other tools
# write it: crowds are left out when detections are scored. Names are paths below the common folder, never equal.


def coco_row(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    """What the file says of a mask, for JSON."""
    height, width = mask_HW.shape
    area = int(np.count_nonzero(mask_HW))
    return {"height": height, "width": width, "area": area, "segmentation": encode_coco(mask_HW)}


def write_coco(stream: BinaryWriter, rows: Rows) -> None:
    """Write COCO's instances."""
    stream.write(b'{"info":{"description":"masks by carmask"},"licenses":[],"images":[\n')
    _write_items(stream, (_coco_image(job, entry) for job, entry in rows()))
    stream.write(b'],"annotations":[\n')
    _write_items(stream, (_coco_annotation(job, entry) for job, entry in rows() if entry["box_px"]))
    stream.write(b'],"categories":[{"id":1,"name":"vehicle","supercategory":"vehicle"}]}\n')


def _coco_image(job: Job, entry: Entry) -> dict[str, Any]:
    size = {key: entry["row"][key] for key in ("height", "width")}
    return {"id": job.position + 1, "file_name": job.name, **size}


def _coco_annotation(job: Job, entry: Entry) -> dict[str, Any]:
    top, left, bottom, right = entry["box_px"]
    score = {"score": entry["expected_dice"]} if "expected_dice" in entry else {}
    return {
        "id": job.position + 1,
        "image_id": job.position + 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, right - left, bottom - top],
        "area": entry["row"]["area"],
        **score,
        "segmentation": entry["row"]["segmentation"],
    }


def _write_items(stream: BinaryWriter, items: Iterable[dict[str, Any]]) -> None:
    separator = b""
    for item in items:
        stream.write(separator + json.dumps(item, separators=(",", ":")).encode())
        separator = b",\n"
