"""What `predict` and `convert` have in common: where results go, and how a run is reported."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, Token

from carmask.cli.console import print_line, print_remark, progress_bar
from carmask.errors import CarmaskError
from carmask.pipeline.kinds import STREAM
from carmask.pipeline.urls import URL, path_or_url

if TYPE_CHECKING:
    from collections.abc import Generator

    from carmask.pipeline.jobs import PhotoOutcome

    # They bring numpy and OpenCV, which a command's help does not wait for.
    from carmask.pipeline.outputs import Plan
    from carmask.pipeline.sinks import Sink
    from carmask.pipeline.summary import RunSummary


def _refuse_option(_: object, place: Path | URL) -> None:
    if str(place).startswith("-") and place != STREAM:
        raise ValueError(f"there is no option {place}; for a file of that name write ./{place}")


def _to_place(_: object, tokens: Sequence[Token]) -> Path | URL:
    return path_or_url(tokens[0].value)


# A path, or `-`.
Place = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]
# A path, an address, or `-`.
Source = Annotated[
    Path | URL,
    Parameter(allow_leading_hyphen=True, validator=_refuse_option, converter=_to_place, n_tokens=1, accepts_keys=False),
]


@dataclass(frozen=True)
class Reporter:
    """Says what becomes of photos, in lines for people or for machines (JSON, on standard output).

    Lines for people go to standard error where results or JSON go to standard output.
    """

    plan: "Plan"
    as_json: bool
    noun: str = "photo"

    def __post_init__(self) -> None:
        if self.as_json and self.plan.destination == STREAM:
            raise CarmaskError("--json: goes to standard output, and so would the result; name a file for the result")

    def say(self, text: str, style: str = "") -> None:
        """Print a line for people."""
        if self.as_json or self.plan.destination == STREAM:
            print_remark(text)
        else:
            print_line(text, style)

    def say_left_out(self) -> None:
        """Name the folders whose pictures are results, and no photos."""
        for folder in self.plan.jobs.photos.left_out:
            self.say(f"{folder}: holds results of carmask; left out")

    def follow(self, outcomes: "Generator[PhotoOutcome, None, None]", store: "Sink", what: str) -> int:
        """Take all outcomes with a bar, and report them; the exit status, 2 where something failed."""
        from carmask.pipeline.summary import run

        jobs, lists = self.plan.jobs, self.plan.lists
        started_s = time.perf_counter()
        if store.before:
            self.say(f"{store.before} of {self._many(len(jobs))} done before")
        try:
            with progress_bar(what, unit="img") as advance:
                summary = run(
                    outcomes, store, jobs, lists, progress=advance, each=_print_json if self.as_json else None
                )
        except KeyboardInterrupt:
            if not self.plan.of_one:
                print_remark("stopped; the same command goes on from here")
            raise
        self._report(summary, len(store.jobs), time.perf_counter() - started_s)
        return 2 if summary.failed else 0

    def _report(self, summary: "RunSummary", tried: int, seconds: float) -> None:
        lists, destination = self.plan.lists, self.plan.destination
        empty = [f"no vehicle found: {photo}" for photo in summary.first_empty]
        self._say_some(empty, summary.empty, lists.empty, "yellow")
        causes = [failure.cause for failure in summary.first_failures]
        self._say_some(causes, summary.failed, None, "red")
        if destination != STREAM and (tried or not summary.before):
            took = "" if self.plan.of_one else f" ({seconds:.1f} s, {tried / seconds:.1f} a second)"
            self.say(f"{summary.done} of {self._many(tried)} written to {destination}{took}")
        if summary.failed and lists.failures:
            self.say(f"{summary.failed} failure{'s' * (summary.failed > 1)}, listed in {lists.failures}")
        if self.as_json:
            counts = {
                "photos": len(self.plan.jobs),
                "done": summary.done,
                "done_before": summary.before,
                "failed": summary.failed,
                "without_vehicle": summary.empty,
            }
            _print_json_line({"summary": {**counts, "destination": str(destination)}})

    def _many(self, count: int) -> str:
        return f"{count} {self.noun}{'s' * (count != 1)}"

    def _say_some(self, lines: Sequence[str], count: int, listed: Path | None, style: str) -> None:
        for line in lines:
            self.say(line, style)
        if count > len(lines):
            self.say(f"... and {count - len(lines)} more{f', listed in {listed}' if listed else ''}", style)


def _print_json(outcome: "PhotoOutcome", result: str | None) -> None:
    photo = str(outcome.job.origin)
    if outcome.cause is not None:
        _print_json_line({"photo": photo, "error": outcome.cause})
        return
    _print_json_line(
        {
            "photo": photo,
            "result": result,
            "found": outcome.extent.box_px is not None,
            "box_px": outcome.extent.box_px,
            "coverage": outcome.extent.coverage,
            "seconds": round(outcome.seconds, 4),
        }
    )


def _print_json_line(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)
