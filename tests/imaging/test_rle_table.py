"""Tables of run lengths, damaged as downloads are."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from carmask.imaging.rle_table import TableError, read_rows


def test_a_damaged_compressed_table_is_refused_in_words(tmp_path: Path) -> None:
    """Bytes flipped one at a time: the table is read, or refused with its name; gzip finds all but its own header's."""
    rng = np.random.default_rng(0)
    runs = [" ".join(map(str, rng.integers(1, 10**6, 60))) for _ in range(20)]
    rows = [["img", "rle_mask"], *([f"{number}.jpg", text] for number, text in enumerate(runs))]
    text = "".join(f"{','.join(row)}\r\n" for row in rows)
    whole = gzip.compress(text.encode(), mtime=0)
    table = tmp_path / "table.csv.gz"
    refusals = []
    for place in [*range(40), *range(40, len(whole), 97), *range(len(whole) - 8, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        table.write_bytes(damaged)
        try:
            read = [fields for _, fields in read_rows(table)]
        except TableError as refusal:
            refusals.append(str(refusal))
        else:
            assert place < 10, "only of gzip's header there are bytes that say nothing of the content"
            assert read == rows[1:]
    assert len(refusals) > 60
    assert all(str(table) in refusal for refusal in refusals)
    assert any("Error -3" in refusal for refusal in refusals), "zlib's own errors were among them"


def test_the_first_rows_of_a_table_that_is_cut_short_are_not_all_of_it(tmp_path: Path) -> None:
    table = tmp_path / "table.csv.gz"
    table.write_bytes(gzip.compress(b"img,rle_mask\r\n" + b"a.jpg,1 3\r\n" * 999)[:-9])
    with pytest.raises(TableError, match="cannot be read as a table"):
        list(read_rows(table))
