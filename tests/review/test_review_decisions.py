"""Tables of decisions without a page: photos in stores, odd names, damaged tables."""

from pathlib import Path

import pytest

from bright_photos import Command, save

HEAD = "name,decision,score,photo,result\n"


@pytest.fixture
def review(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command("review", capsys)


def test_photos_in_stores_are_listed_as_they_were_named(review: Command, tmp_path: Path) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text(f"{HEAD}a.jpg,accept,0.9,s3://cars/a.jpg,/out/a.png\n")
    assert review("apply", table) == 0
    assert (tmp_path / "decisions" / "accepted.txt").read_text() == "s3://cars/a.jpg\n"
    review.assert_refused("apply", table, tmp_path / "sorted", "--copy", naming=("s3://cars/a.jpg",))
    assert not (tmp_path / "sorted").exists()


def test_names_with_line_breaks_of_other_kinds(review: Command, tmp_path: Path) -> None:
    names = ["a\N{LINE SEPARATOR}b.png", "c\x0cd.png", "e\rf.png"]
    for name in names:
        save(tmp_path / name)
    table = tmp_path / "decisions.csv"
    rows = (f'"{name}",reject,0.9,"{tmp_path / name}","{tmp_path / name}"\n' for name in names)
    table.write_bytes((HEAD + "".join(rows)).encode())
    assert review("apply", table, tmp_path / "sorted", "--copy") == 0
    for name in names:
        assert (tmp_path / "sorted/rejected/images" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_table_that_cannot_be_read_is_named(review: Command, tmp_path: Path) -> None:
    for table in (tmp_path / "nofile.csv", tmp_path):
        review.assert_refused("apply", table, naming=(f"{table}: ",))
        assert review.err.count(str(table)) == 1, "the cause does not repeat it"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("rows", ["a.png,accept\n", "a.png,accept,1,/a.png,\n", f"{'a' * 200_000}\n"])
def test_a_damaged_table_is_refused(review: Command, rows: str, tmp_path: Path) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text(HEAD + rows)
    review.assert_refused("apply", table, naming=("decisions.csv",))
    assert not (tmp_path / "decisions").exists()
