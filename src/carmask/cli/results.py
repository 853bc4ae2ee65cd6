"""How `predict` and `convert` report a run: in lines for people, or in JSON for programs."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from carmask.cli.console import print_line, print_remark
from carmask.errors import CarmaskError
from carmask.pipeline.kinds import STREAM
from carmask.progress import progress_bar

if TYPE_CHECKING:
    # They import numpy and OpenCV, which --help does not wait for.
    from carmask.pipeline.jobs import PhotoOutcome
    from carmask.pipeline.outputs import Plan
    from carmask.pipeline.summary import RunSummary
    from carmask.progress import Progress
    from carmask.review.review import Review


class ResultReporter:
    """Prints the outcomes of photos, for people or as JSON on standard output.

    Lines for people go to standard error where results or JSON go to standard output.
    """

    def __init__(self, plan: "Plan", as_json: bool, noun: str = "photo") -> None:
        if as_json and plan.destination == STREAM:
            raise CarmaskError(
                "--json: standard output cannot take both JSON and the result; name a file for the result"
            )
        self.plan = plan
        self._as_json = as_json
        self._noun = noun
        self._advance: Progress | None = None
        self._started_s = 0.0

    def say(self, text: str, style: str = "") -> None:
        """Print a line for people."""
        if self._as_json or self.plan.destination == STREAM:
            print_remark(text)
        else:
            print_line(text, style)

    def say_skipped(self) -> None:
        """Name the folders that hold results, whose pictures are not taken for photos."""
        for folder in self.plan.jobs.photos.skipped:
            self.say(f"{folder}: holds results of carmask; left out")

    @contextmanager
    def running(self, what: str) -> "Iterator[Progress]":
        """Show a progress bar, and explain an interruption."""
        try:
            with progress_bar(what, unit="img") as self._advance:
                yield self._advance
        except KeyboardInterrupt:
            if not self.plan.of_one:
                print_remark("stopped; run the same command again to continue")
            raise

    def follow(self, outcomes: "Iterator[PhotoOutcome]", todo: int) -> "Iterator[PhotoOutcome]":
        """Show each outcome after it was recorded; see `carmask.pipeline.summary.Follow`."""
        self._started_s = time.perf_counter()
        planned = len(self.plan.jobs)
        if planned > todo:
            self.say(f"{planned - todo} of {self._count(planned)} done before")
        for tried, outcome in enumerate(outcomes, start=1):
            yield outcome
            if self._as_json:
                self._print_outcome(outcome)
            if self._advance is not None:
                self._advance(tried, todo)

    def say_review(self, review: "Review") -> None:
        """Name the page with the photos to review."""
        for problem in review.problems:
            self.say(problem, "yellow")
        if review.path is None:
            self.say(f"review: none of {self._count(review.photos)} is below the limit")
        else:
            self.say(f"review: {review.shown} of {self._count(review.photos)} in {review.path}; open it in a browser")

    def finish(self, summary: "RunSummary") -> int:
        """Print the summary of a run; returns the exit status, 2 if some photos failed."""
        seconds = time.perf_counter() - self._started_s
        plan, tried = self.plan, summary.tried
        empty = [f"no vehicle found: {photo}" for photo in summary.first_empty]
        for remark, (first, count) in summary.remarks.items():
            self.say(f"{first}{f' and {count - 1} more' if count > 1 else ''}: {remark}", "yellow")
        self._say_first(empty, summary.empty, "yellow")
        self._say_first([failure.cause for failure in summary.first_failures], summary.failed, "red")
        if plan.destination != STREAM and (tried or not summary.done_before):
            took = "" if plan.of_one else f" ({seconds:.1f} s, {tried / seconds:.1f} a second)"
            self.say(f"{summary.done} of {self._count(tried)} written to {plan.destination}{took}")
        if summary.empty and (no_vehicle := plan.list_file("no_vehicle")):
            self.say(f"{self._count(summary.empty)} without a vehicle, listed in {no_vehicle}")
        if summary.failed and (failures := plan.list_file("failures")):
            self.say(f"{summary.failed} failure{'s' * (summary.failed > 1)}, listed in {failures}")
        left_out = plan.jobs.photos.left_out
        if left_out:
            from carmask.imaging.formats import describe_left_out

            self.say(f"left out: {describe_left_out(left_out)}")
        if self._as_json:
            counts = {
                "photos": len(plan.jobs),
                "done": summary.done,
                "done_before": summary.done_before,
                "failed": summary.failed,
                "without_vehicle": summary.empty,
                "left_out": dict(left_out),
            }
            _print_json({"summary": {**counts, "destination": str(plan.destination)}})
        return 2 if summary.failed else 0

    def _print_outcome(self, outcome: "PhotoOutcome") -> None:
        line: dict[str, object] = {"photo": str(outcome.job.origin)}
        if outcome.cause is not None:
            line["error"] = outcome.cause
        else:
            line["result"] = str(self.plan.result_of(outcome.job))
            line["found"] = outcome.box_px is not None
            line["box_px"] = outcome.box_px
            line["coverage"] = outcome.coverage
            line["expected_dice"] = outcome.expected_dice
            if outcome.job.remark:
                line["remark"] = outcome.job.remark
            line["seconds"] = round(outcome.seconds, 4)
        _print_json(line)

    def _count(self, count: int) -> str:
        return f"{count} {self._noun}{'s' * (count != 1)}"

    def _say_first(self, lines: Sequence[str], count: int, style: str) -> None:
        for line in lines:
            self.say(line, style)
        if count > len(lines):
            self.say(f"... and {count - len(lines)} more", style)


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)
