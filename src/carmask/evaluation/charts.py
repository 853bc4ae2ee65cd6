"""The report's charts, as SVG inside the page. Their colors are its CSS variables, so light and dark mode apply."""

import csv
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.evaluation.results import Evaluation
from carmask.evaluation.summaries import TableRow
from carmask.files import as_valid_text
from carmask.privacy import fonts_in_temporary_folder

with fonts_in_temporary_folder():
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

MAX_BARS = 40

# Placeholder colors, which the page's CSS variables replace in the finished SVG.
_INK, _MUTED, _GRID, _ACCENT, _SECOND = (f"#0{digit}0{digit}0{digit}" for digit in range(1, 6))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line", _ACCENT: "--accent", _SECOND: "--second"}

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "carmask",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Chart:
    """One chart: its title, a line on how to read it, and the drawing."""

    title: str
    caption: str
    svg: str
    wide: bool = False


def draw_charts(evaluation: Evaluation, *, group_word: str = "group", training_log: Path | None = None) -> list[Chart]:
    """Draw every chart that the evaluation has data for; `training_log` is a run's `metrics.csv`."""
    charts = []
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the letters, so it does not matter which of them matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        if evaluation.vehicle_rows:
            charts += [_dice_histogram(evaluation), _boundary_histogram(evaluation), _dice_by_area(evaluation)]
        if evaluation.expected:
            charts.append(_dice_by_expected(evaluation))
        if by_view := evaluation.by_view:
            charts.append(_bars_by_view(by_view))
        if by_group := evaluation.by_group:
            charts.append(_bars_by_group(by_group, group_word))
        if training_log is not None and training_log.is_file():
            charts += _training_curves(training_log)
    return charts


def _dice_histogram(evaluation: Evaluation) -> Chart:
    dice = evaluation.values("dice")
    # A few failures must not press all other photos into one bar: the first bar takes everything below.
    low = max(float(dice.min()), 1.0 - 3.0 * (1.0 - float(np.percentile(dice, 5))))
    low = min(low, 0.999)
    figure, axes = _new_figure()
    axes.hist(np.maximum(dice, low), bins=40, range=(low, 1.0), color=_ACCENT)
    _mark(axes, float(dice.mean()), f"mean {dice.mean():.4f}", left=True)
    axes.set(xlabel="Dice", ylabel="photos", xlim=(low, 1.0))
    caption = "One count per photo, measured at the photo's own size."
    if below := int(np.count_nonzero(dice < low)):
        caption += f" The first bar also holds {below} photo{'s' * (below > 1)} below {low:.4f}."
    return Chart("Dice", caption, _svg(figure))


def _boundary_histogram(evaluation: Evaluation) -> Chart:
    error_px = evaluation.values("boundary_error_px")
    undefined = int(np.isnan(error_px).sum())
    error_px = error_px[~np.isnan(error_px)]
    high = max(min(float(error_px.max()), 3.0 * float(np.percentile(error_px, 95))), 0.5) if error_px.size else 1.0
    figure, axes = _new_figure()
    axes.hist(np.minimum(error_px, high), bins=40, range=(0.0, high), color=_ACCENT)
    if error_px.size:
        _mark(axes, float(error_px.mean()), f"mean {error_px.mean():.2f} px", left=False)
    axes.set(xlabel="mean boundary error (px)", ylabel="photos", xlim=(0.0, high))
    caption = "How far the predicted outline lies from the true one on average."
    if above := int(np.count_nonzero(error_px > high)):
        caption += f" The last bar also holds {above} photo{'s' * (above > 1)} above {high:.1f} px."
    if undefined:
        caption += f" Undefined, because a mask has no outline, for {undefined} photo{'s' * (undefined > 1)}."
    return Chart("Boundary error", caption, _svg(figure))


def _dice_by_area(evaluation: Evaluation) -> Chart:
    figure, axes = _new_figure()
    area_percent = 100 * evaluation.values("truth_area")
    axes.scatter(area_percent, evaluation.values("dice"), s=9, color=_ACCENT, alpha=0.55, linewidths=0)
    axes.set(xlabel="true mask (% of the picture)", ylabel="Dice")
    return Chart("Dice and mask area", "One dot per photo. Small objects lose more Dice per pixel.", _svg(figure))


def _dice_by_expected(evaluation: Evaluation) -> Chart:
    pairs = [(row.expected_dice, row.metrics.dice) for row in evaluation.rows if row.expected_dice is not None]
    expected, dice = np.array(pairs).T
    figure, axes = _new_figure()
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1)
    axes.scatter(expected, dice, s=9, color=_ACCENT, alpha=0.55, linewidths=0)
    low = min(0.98, float(np.min(pairs)))
    margin = 0.03 * (1 - low)
    axes.set(xlabel="expected Dice", ylabel="Dice", xlim=(low - margin, 1 + margin), ylim=(low - margin, 1 + margin))
    caption = "One dot per photo, with and without a vehicle. On the line the expected Dice is the measured one."
    return Chart("Dice and expected Dice", caption, _svg(figure))


def _bars_by_view(table: list[TableRow]) -> Chart:
    figure, axes = _new_figure()
    axes.bar([_label(row.name) for row in table], [1 - row.dice for row in table], color=_ACCENT, width=0.72)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="view", ylabel="1 - Dice")
    return Chart("By view", "Mean of 1 - Dice: shorter is better.", _svg(figure))


def _bars_by_group(table: list[TableRow], group_word: str) -> Chart:
    shown = sorted(table, key=lambda row: row.dice)[:MAX_BARS]
    figure, axes = _new_figure(10.6, 0.9 + 0.19 * len(shown))
    places = np.arange(len(shown))
    axes.barh(places, [1 - row.worst_dice for row in shown], color=_GRID, height=0.74, label="its worst photo")
    axes.barh(places, [1 - row.dice for row in shown], color=_ACCENT, height=0.74, label="mean")
    axes.set_yticks(places, [_label(row.name) for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="1 - Dice")
    axes.legend(loc="lower right")
    caption = "Mean and worst 1 - Dice, hardest first: shorter is better."
    if len(table) > len(shown):
        caption += f" The {len(shown)} hardest of {len(table)}; the table has them all."
    return Chart(f"By {group_word}", caption, _svg(figure), wide=True)


def _training_curves(log: Path) -> list[Chart]:
    columns = _numeric_columns(log)
    across = "epoch" if "epoch" in columns else "step"
    if across not in columns:
        return []
    charts = []
    for kind, label in (("loss", "loss"), ("dice", "Dice")):
        names = [name for name in columns if kind in name.lower()]
        if not names:
            continue
        figure, axes = _new_figure()
        for name, color in zip(names, (_ACCENT, _SECOND, _INK, _MUTED), strict=False):
            known = ~np.isnan(columns[name])
            x, y = columns[across][known], columns[name][known]
            axes.plot(x, y, color=color, label=name, marker="o" if len(y) < 25 else "", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=across, ylabel=label)
        axes.legend()
        charts.append(Chart(f"Training: {label}", f"From the run's {log.name}.", _svg(figure)))
    return charts


def _numeric_columns(log: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a CSV file whose cells are numbers or empty (NaN)."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {}
    for name in rows[0] if rows else ():
        try:
            columns[name] = np.array([float(row[name] or "nan") for row in rows])
        except (TypeError, ValueError):
            continue
    return columns


def _label(name: str) -> str:
    """A name short enough for an axis, without bytes that are no text; the end tells cars apart."""
    name = as_valid_text(name)
    return name if len(name) <= 24 else "…" + name[-23:]


def _mark(axes: Axes, x: float, text: str, *, left: bool) -> None:
    """Draw a vertical line with its label in the free space above the bars, to its left or right."""
    axes.axvline(x, color=_SECOND, linewidth=1.2)
    axes.margins(y=0.16)
    shift, side = (-4, "right") if left else (4, "left")
    top = axes.get_xaxis_transform()
    axes.annotate(
        text, (x, 0.98), (shift, 0), xycoords=top, textcoords="offset points", ha=side, va="top", color=_SECOND
    )


def _new_figure(width_in: float = 5.2, height_in: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """Return the bare `<svg>` element, without addresses of namespaces or metadata."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text.strip()
