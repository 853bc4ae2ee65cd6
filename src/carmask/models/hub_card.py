"""A network's card as the Hugging Face Hub shows it: front matter for machines, text for people.

Everything in it is what the network knows of itself, so a card cannot tell a figure that nobody has measured. The text
stands in `hub_card.md.jinja`.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import huggingface_hub as hub
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from carmask import __version__
from carmask.errors import CarmaskError, explain
from carmask.imaging.geometry import Geometry, Size, plan
from carmask.models.config import UNetConfig

# The last words of every card. A README.md in which they still stand is ours to write anew.
SIGNATURE = "Written by carmask from what the network knows of itself"

# Where, among the notes on a network, a list of `HeldOut` stands.
HELD_OUT = "held_out"

Item = TypeVar("Item")

_CARVANA_CAR = re.compile(r"[0-9a-f]{12}")
_FRAME_HW = (1080, 1920)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")


class CardError(CarmaskError):
    """Notes on a network that no card can be made from."""


class HeldOut(BaseModel):
    """What a network reached on the photos of one data set, each at its own size, as `carmask evaluate` measures it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="name of the folder of photos and masks")
    photos: int = Field(ge=1, description="how many were measured")
    groups: int | None = Field(default=None, ge=1, description="how many groups (cars) they are of")
    dice: float = Field(ge=0, le=1, description="mean over the photos, each counting the same")
    median_dice: float | None = Field(default=None, ge=0, le=1)
    worst_dice: float | None = Field(default=None, ge=0, le=1)
    boundary_error_px: float | None = Field(default=None, ge=0, description="mean distance between the two outlines")
    engine: str | None = Field(default=None, description="what ran the network, and in which precision")
    of_twin: bool = Field(
        default=False,
        description="measured on a network trained in the same way, but not on these photos as this one was",
    )
    remarks: tuple[str, ...] = Field(default=(), description="whether the photos were held out, and by whom chosen")


class Compared(BaseModel):
    """How an engine's masks compare with PyTorch's, and with the true ones, as an export notes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: str
    precision: str
    dice: float
    same_mask: float = Field(description="Dice of its masks and PyTorch's")


@dataclass(frozen=True)
class Source:
    """Photos whose origin is known: an id for machines, what they show, and under which terms they were published."""

    id: str
    shows: str
    terms: str


# By the name of the folder in which they lie. Of any other folder no more is said than its name.
SOURCES = {
    "carvana": Source(
        "carvana-image-masking-challenge",
        "photos of the Carvana Image Masking Challenge: one car to a photo, whole, in one photo studio, from up to "
        "sixteen sides, 1918 x 1280 px",
        "No license is stated for these photos where they were found. They were used to train and to measure, and are "
        "not redistributed: not here, and not with carmask.",
    ),
    "street-cars": Source(
        "intelec-ai-car-segmentation",
        'photos of single cars outside a studio, published by Intelec AI as "car-segmentation"',
        "These photos were published as free to use in private and commercial projects, with a citation asked for: "
        'Intelec AI, "car-segmentation". They are not redistributed here either.',
    ),
}


@dataclass(frozen=True)
class Facts:
    """What is known of a network.

    call: what `--model` is given. version: of the carmask that made it. stored, computed: in what the weights are, and
    the convolutions. notes: on its training. measured: of these very weights, in this form, and of no others.
    """

    name: str
    form: Literal["weights", "onnx"]
    call: str
    geometry: Geometry
    channels: int
    stride_px: int
    threshold: float
    unet: UNetConfig | None = None
    version: str = __version__
    stored: str = "float32"
    computed: str = "float32"
    parameters: int | None = None
    size_bytes: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    train_groups: Sequence[str] = ()
    held_out_groups: Sequence[str] = ()
    is_packaged: bool = False

    @property
    def frame_HW(self) -> Size:
        """Height and width in pixels at which a 16:9 frame is seen."""
        return plan(_FRAME_HW, self.geometry, stride_px=self.stride_px).content_HW

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """Notes on the training, and on those from whose weights it started, the latest first."""
        found = [self.notes]
        while isinstance(earlier := found[-1].get("started_from"), Mapping):
            found.append(earlier)
        return [notes for notes in found if notes.get("data")]

    @property
    def held_out(self) -> list[HeldOut]:
        """Dice on photos that were not trained on: as measured afterwards, or else by the training itself.

        Raises:
            CardError: the notes on it cannot be understood.

        """
        if self.measured.get(HELD_OUT):
            return _read(HELD_OUT, list[HeldOut], self.measured[HELD_OUT])
        if self.measured.get("held_out_dice") is None or not self.measured.get("held_out_photos"):
            return []
        entry = {
            "data": str(self.notes.get("data", "not known")),
            "photos": self.measured["held_out_photos"],
            "groups": len(self.held_out_groups) or None,
            "dice": self.measured["held_out_dice"],
            "remarks": ["Measured by the training itself, which chose its best epoch by them."],
        }
        return _read("held_out_dice", list[HeldOut], [entry])

    @property
    def engines(self) -> list[Compared]:
        """What the export compared. Raises `CardError`, too."""
        return _read("engines", list[Compared], self.measured.get("engines", []))

    @property
    def sources(self) -> dict[str, Source | None]:
        """Photos trained on, or measured, by the name of their folder; "a+b" holds those of both."""
        folders = [str(notes["data"]) for notes in self.trainings] + [entry.data for entry in self.held_out]
        names = [name for folder in folders for name in folder.split("+") if name]
        return {name: SOURCES.get(name) for name in dict.fromkeys(names)}

    @property
    def carvana_cars(self) -> tuple[int, int] | None:
        """How many cars of the challenge were trained on and held out; nothing where it is not known."""
        if "carvana" not in self.sources or not self.train_groups:
            return None
        learned, held = (
            sum(_CARVANA_CAR.fullmatch(group) is not None for group in groups)
            for groups in (self.train_groups, self.held_out_groups)
        )
        return (learned, held) if learned + held else None


def write_hub_card(facts: Facts, *, tags: Sequence[str] = ("u-net",), license_id: str | None = None) -> hub.ModelCard:
    """Write a card. `license_id` is the weights' own license, as the Hub names it; none is made up.

    Raises:
        CardError: the notes on the network cannot be understood.

    """
    results = list(_results(facts))
    data = hub.ModelCardData(
        license=license_id,
        library_name="carmask",
        pipeline_tag="image-segmentation",
        tags=[*tags, *(["onnx"] if facts.form == "onnx" else [])],
        datasets=[source.id for source in facts.sources.values() if source] or None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    text = _template().render(facts=facts, license_id=license_id, signature=SIGNATURE)
    return hub.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


@cache
def _template() -> Template:
    templates = Environment(  # noqa: S701 - Markdown, not HTML: names are escaped by the filters below
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"plain": _plain, "code": _code, "count": _count, "json": json.dumps, "shell": shlex.quote}
    return templates.get_template("hub_card.md.jinja")


def _read(name: str, kind: type[Item], notes: Any) -> Item:
    try:
        return TypeAdapter(kind).validate_python(notes)
    except ValidationError as error:
        raise CardError(
            f"what is noted with the network as '{name}' cannot be understood ({explain(error)}); measure and note it "
            "again"
        ) from error


def _results(facts: Facts) -> Iterator[hub.EvalResult]:
    """Figures for the Hub's own tables, which know nothing of twins."""
    for entry in (entry for entry in facts.held_out if not entry.of_twin):
        metrics = {
            "dice": ("Dice, mean", entry.dice),
            "median_dice": ("Dice, median", entry.median_dice),
            "worst_dice": ("Dice, worst photo", entry.worst_dice),
            "boundary_error_px": ("mean boundary error in pixels, less is better", entry.boundary_error_px),
        }
        photos = f"{entry.photos} held-out photos of {entry.data}"
        for metric, (title, value) in metrics.items():
            if value is not None:
                title = f"{title}, {entry.engine}" if entry.engine else title
                yield _result(entry.data, photos, metric, title, value)
    if not facts.held_out:
        # An int8 network has no more than what its export compared.
        photos = str(facts.measured.get("compared_on", "not known"))
        for one in facts.engines:
            title = f"Dice, mean, {one.engine} in {one.precision}"
            yield _result(str(facts.notes.get("data", "")), photos, "dice", title, one.dice)


def _result(data: str, photos: str, metric: str, title: str, value: float) -> hub.EvalResult:
    # The Hub wants an id and makes it a link where it has data of that id: a folder's bare name could be a stranger's.
    folder = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-")
    return hub.EvalResult(
        task_type="image-segmentation",
        task_name="Image segmentation",
        dataset_type=SOURCES[data].id if data in SOURCES else f"folder-{folder}".strip("-"),
        dataset_name=photos,
        # What is of one type and configuration becomes one table: two folders must not.
        dataset_config=data or None,
        metric_type=metric,
        metric_name=title,
        metric_value=value,
    )


def _count(value: Any) -> str:
    """A number of photos or groups as people write it."""
    return f"{value:,}" if isinstance(value, int) else _plain(str(value))


def _plain(text: str) -> str:
    """Text of others as Markdown shows it: in one line, without markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text of others as code, in one line."""
    return "`" + " ".join(text.split()).replace("`", "'") + "`"
