"""An evaluation as one HTML page that needs nothing but itself. Needs Matplotlib and Jinja."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from carmask.evaluation.cases import Case
from carmask.evaluation.figures import draw_charts
from carmask.evaluation.report import METRICS, Subject, format_figure
from carmask.evaluation.results import AVERAGED, Evaluation
from carmask.imaging.draw import FALSE_NEGATIVE_RGB, FALSE_POSITIVE_RGB


def render_page(
    evaluation: Evaluation,
    subject: Subject,
    *,
    cases: Sequence[Case] = (),
    training_log: Path | None = None,
) -> str:
    """The whole report as one HTML page, with its charts and pictures inside."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["figure"] = format_figure
    return templates.get_template("report.html.jinja").render(
        evaluation=evaluation,
        subject=subject,
        facts=_flatten({**subject.description}),
        environment=_flatten({**subject.environment}),
        charts=draw_charts(evaluation, group_word=subject.group_word, training_log=training_log),
        cases=cases,
        metrics=METRICS,
        more_is_better=AVERAGED,
        false_positive=_css(FALSE_POSITIVE_RGB),
        false_negative=_css(FALSE_NEGATIVE_RGB),
    )


def _css(rgb: tuple[int, int, int]) -> str:
    return f"rgb({', '.join(map(str, rgb))})"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of name and text."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            lines += _flatten({f"{name} {number}": item for number, item in enumerate(value, start=1)}, prefix)
        elif isinstance(value, Mapping):
            lines += _flatten(value, f"{prefix}{name} · ")
        else:
            lines.append((f"{prefix}{name}", "unknown" if value is None else str(value)))
    return lines
