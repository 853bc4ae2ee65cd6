"""The README of a network for the Hugging Face Hub: front matter for machines, text for people.

Everything in it comes from the network's `ModelCard`. The text, with the facts about two data sets, is in
`hub_card.md.jinja`.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from carmask.imaging.geometry import plan
from carmask.models.card import HeldOut, ModelCard

# The last words of every README. One that still contains them may be overwritten.
SIGNATURE = "Written by carmask from the network's own metadata"

# Data sets that have an id on the Hub or elsewhere, by the name of their folder.
_DATASET_IDS = {"carvana": "carvana-image-masking-challenge", "street-cars": "intelec-ai-car-segmentation"}

# The name of a data set stands before its groups where a network learned from several.
_CARVANA_CAR = re.compile(r"(carvana/)?[0-9a-f]{12}")
_FRAME_HW = (1080, 1920)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")


def write_hub_card(
    card: ModelCard,
    *,
    model: str,
    onnx: Path | None = None,
    packaged: bool = False,
    parameters: int | None = None,
    tags: Sequence[str] = ("u-net", "onnx"),
    license_id: str | None = None,
) -> hub.ModelCard:
    """Write the README of a network.

    Args:
        card: Its metadata.
        model: What a user gives to `--model`.
        onnx: Its `.onnx` file; None for a folder of weights.
        packaged: Whether the file is inside the package.
        parameters: Number of parameters, if it is known.
        tags: Tags for the Hub.
        license_id: The license of the weights, as the Hub names it; None if it is not known.
    """
    held_out = _held_out(card)
    trainings = [notes for notes in card.trainings if notes.get("data")]
    folders = [str(notes["data"]) for notes in trainings] + [entry.data for entry in held_out]
    # "a+b" holds the photos of both folders.
    datasets = list(dict.fromkeys(name for folder in folders for name in folder.split("+") if name))
    results = list(_results(card, held_out))
    data = hub.ModelCardData(
        license=license_id,
        library_name="carmask",
        pipeline_tag="image-segmentation",
        tags=list(tags),
        datasets=[_DATASET_IDS[name] for name in datasets if name in _DATASET_IDS] or None,
        model_name=card.name if results else None,
        eval_results=results or None,
    )
    text = _template().render(
        card=card,
        model=model,
        onnx_bytes=onnx and onnx.stat().st_size,
        packaged=packaged,
        parameters=parameters,
        license_id=license_id,
        signature=SIGNATURE,
        trainings=trainings,
        held_out=held_out,
        held_out_groups=_held_out_groups(card),
        datasets=datasets,
        carvana_cars=_carvana_cars(card) if "carvana" in datasets else None,
        frame_HW=plan(_FRAME_HW, card.geometry, stride_px=card.stride_px).content_HW,
    )
    return hub.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _held_out_groups(card: ModelCard) -> Sequence[str]:
    return card.held_out_groups or card.training.get("groups_held_out", ())


def _held_out(card: ModelCard) -> tuple[HeldOut, ...]:
    """Return the figures on held-out photos: those measured afterwards, or else the training's own."""
    dice, photos = (card.training.get(f"held_out_{name}") for name in ("dice", "photos"))
    # The training measured the float weights, not the int8 ones.
    if card.measured.held_out or card.precision == "int8" or dice is None or not photos:
        return card.measured.held_out
    entry = {
        "data": str(card.training.get("data", "not known")),
        "photos": photos,
        "groups": len(_held_out_groups(card)) or None,
        "dice": dice,
        "remarks": ["Measured by the training itself, which chose its best epoch by them."],
    }
    return (HeldOut.model_validate(entry),)


def _carvana_cars(card: ModelCard) -> tuple[int, int] | None:
    """Return how many cars of the challenge were trained on and held out; None if it is not known."""
    trained, held_out = (
        sum(_CARVANA_CAR.fullmatch(group) is not None for group in groups)
        for groups in (card.train_groups, card.held_out_groups)
    )
    return (trained, held_out) if card.train_groups and trained + held_out else None


def _results(card: ModelCard, held_out: Sequence[HeldOut]) -> Iterator[hub.EvalResult]:
    """Yield the figures for the Hub's own tables, which have no column for twins."""
    for entry in held_out:
        metrics = {
            "dice": ("Dice, mean", entry.dice),
            "median_dice": ("Dice, median", entry.median_dice),
            "worst_dice": ("Dice, worst photo", entry.worst_dice),
            "boundary_error_px": ("mean boundary error in pixels, less is better", entry.boundary_error_px),
        }
        photos = f"{entry.photos} held-out photos of {entry.data}"
        for metric, (title, value) in metrics.items():
            if value is not None and not entry.of_twin:
                yield _result(entry.data, photos, metric, f"{title}, {entry.engine}" if entry.engine else title, value)
    if not held_out:
        # An int8 network has only the figures of its export.
        photos = card.measured.compared_on or "not known"
        for one in card.measured.engines:
            title = f"Dice, mean, {one.engine} in {one.precision}"
            yield _result(str(card.training.get("data", "")), photos, "dice", title, one.dice)


def _result(data: str, photos: str, metric: str, title: str, value: float) -> hub.EvalResult:
    # The Hub links the id to its own data of that id, so it must not be a bare folder name.
    folder = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-")
    return hub.EvalResult(
        task_type="image-segmentation",
        task_name="Image segmentation",
        dataset_type=_DATASET_IDS.get(data, f"folder-{folder}".strip("-")),
        dataset_name=photos,
        # The Hub makes one table for each type and configuration; two folders need two.
        dataset_config=data or None,
        metric_type=metric,
        metric_name=title,
        metric_value=value,
    )


@cache
def _template() -> Template:
    templates = Environment(  # noqa: S701 - Markdown, not HTML: the filters below escape names
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"plain": _plain, "code": _code, "count": _count, "json": json.dumps, "shell": shlex.quote}
    return templates.get_template("hub_card.md.jinja")


def _count(value: Any) -> str:
    """Format a number of photos or groups."""
    return f"{value:,}" if isinstance(value, int) else _plain(str(value))


def _plain(text: str) -> str:
    """Format other people's text as Markdown: in one line, without markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Format other people's text as code, in one line."""
    return "`" + " ".join(text.split()).replace("`", "'") + "`"
