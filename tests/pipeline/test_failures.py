"""The list of failures, whose photos may fail in any order."""

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmask.pipeline.photo_list import PhotoFailure
from carmask.pipeline.summary import FailureList


@given(st.permutations(range(14)), st.integers(0, 14))
def test_failures_are_listed_in_the_order_of_the_photos(order: list[int], count: int) -> None:
    causes = {position: f'cause, \n"{position}" \udcff' * (position + 1) for position in order}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "new", "failures.csv")
        with FailureList(path) as failures:
            for position in order[:count]:
                failures.add(PhotoFailure(Path(f"{position}.jpg"), causes[position]), position)
            failures.add(PhotoFailure(Path("folder"), "of none"))
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    wanted = [[f"{position}.jpg", causes[position].replace("\udcff", "\\udcff")] for position in sorted(order[:count])]
    assert rows == [["photo", "cause"], ["folder", "of none"], *wanted]
    assert [position for position, _ in failures.first] == [-1, *sorted(order[:count])][:10]
    assert failures.count == count + 1


def test_a_list_that_is_cut_short_holds_what_happened(tmp_path: Path) -> None:
    def interrupted() -> None:
        with FailureList(tmp_path / "failures.csv") as failures:
            for position in (3, 1):
                failures.add(PhotoFailure(Path(f"{position}.jpg"), "broken"), position)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "failures.csv").read_text().splitlines() == ["photo,cause", "3.jpg,broken", "1.jpg,broken"]
