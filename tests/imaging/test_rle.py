"""Run lengths against a slow reference, by property, and against the challenge's own table."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carmask.errors import CarmaskError
from carmask.imaging.decode import decode_mask
from carmask.imaging.rle import RleError, TableError, decode_carvana, encode_carvana, read_rows

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def encode_pixel_by_pixel(mask_HW):
    """Write the run lengths as the challenge describes them, one pixel after the other."""
    runs, number, inside = [], 0, False
    for row in mask_HW:
        for pixel in row:
            number += 1
            if pixel and not inside:
                runs.append([number, 0])
            if pixel:
                runs[-1][1] += 1
            inside = bool(pixel)
    return " ".join(f"{start} {length}" for start, length in runs)


def decode_pixel_by_pixel(text, height, width):
    numbers = [int(word) for word in text.split()]
    mask_HW = np.zeros((height, width), dtype=np.bool_)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for number in range(start, start + length):
            mask_HW[(number - 1) // width, (number - 1) % width] = True
    return mask_HW


@given(masks)
def test_encoding_is_the_reference(mask_HW):
    assert encode_carvana(mask_HW) == encode_pixel_by_pixel(mask_HW)


@given(masks)
def test_decoding_undoes_encoding(mask_HW):
    decoded_HW = decode_carvana(encode_carvana(mask_HW), mask_HW.shape)
    assert decoded_HW.dtype == np.bool_
    np.testing.assert_array_equal(decoded_HW, mask_HW)


@given(masks, st.randoms(use_true_random=False))
def test_split_and_shuffled_runs_mean_the_same(mask_HW, random):
    numbers = [int(word) for word in encode_carvana(mask_HW).split()]
    runs = []
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        cut = random.randint(0, length)
        runs += [run for run in ((start, cut), (start + cut, length - cut)) if run[1]]
    random.shuffle(runs)
    text = " ".join(f"{start} {length}" for start, length in runs)
    np.testing.assert_array_equal(decode_carvana(text, mask_HW.shape), decode_pixel_by_pixel(text, *mask_HW.shape))


def test_known_examples():
    # Kaggle's own example: '1 3 10 5' are the pixels 1, 2, 3, 10, 11, 12, 13, 14.
    marked = np.flatnonzero(decode_carvana("1 3 10 5", (4, 5)).ravel()) + 1
    assert marked.tolist() == [1, 2, 3, 10, 11, 12, 13, 14]
    corner_HW = np.zeros((2, 3), dtype=np.bool_)
    corner_HW[0, 2] = corner_HW[1, 0] = True
    assert encode_carvana(corner_HW) == "3 2", "rows follow each other, and numbers start at 1"
    assert encode_carvana(corner_HW.T) == "2 1 5 1", "a view that is not contiguous is read by rows too"


def test_empty_and_full_mask():
    empty_HW, full_HW = np.zeros((3, 4), dtype=np.bool_), np.ones((3, 4), dtype=np.bool_)
    assert encode_carvana(empty_HW) == ""
    assert encode_carvana(full_HW) == "1 12"
    assert not decode_carvana("", (3, 4)).any()
    assert not decode_carvana("  \n", (3, 4)).any()
    assert decode_carvana("1 12", (3, 4)).all()


@pytest.mark.parametrize(
    "text",
    [
        "1 3 5",
        "0 3",
        "-4 3",
        "1 0",
        "1 -2",
        "12 2",
        "13 1",
        "1 3 3 2",
        "5 2 1 5",
        "4 1 4 1",
        "1 x",
        "1.0 3",
        "1e3 3",
        "1_0 1",
        "+1 1",
        "--1 1",
        "- 1",
        "\u0661 1",
        "nan 1",
        "1 " + "9" * 400,
        "999999999999999999 999999999999999999",
    ],
)
def test_bad_run_lengths_are_refused(text):
    with pytest.raises(RleError) as caught:
        decode_carvana(text, (3, 4))
    assert isinstance(caught.value, CarmaskError)
    assert len(str(caught.value)) < 250


def test_soft_masks_are_refused():
    with pytest.raises(ValueError, match="bool"):
        encode_carvana(np.zeros((3, 4), dtype=np.uint8))


def test_the_challenges_own_table(carvana):
    rows = [fields for _, fields in read_rows(carvana / "train_masks.csv")]
    chosen = rows[:: max(1, len(rows) // 30)]
    assert len(chosen) >= 30
    for photo, runs in chosen:
        soft_HW = decode_mask(carvana / "train_masks" / photo.replace(".jpg", "_mask.gif")).soft_HW
        mask_HW = soft_HW == 255
        assert set(np.unique(soft_HW)) == {0, 255}
        assert encode_carvana(mask_HW) == runs, photo
        np.testing.assert_array_equal(decode_carvana(runs, mask_HW.shape), mask_HW)


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
    with pytest.raises(TableError):
        list(read_rows(table))


def test_reading_a_table_of_long_rows_leaves_the_field_limit_of_csv_alone(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    runs = "1 1 " * limit
    (tmp_path / "table.csv").write_text(f"img,rle_mask\r\na.jpg,{runs}\r\n")
    for _, fields in read_rows(tmp_path / "table.csv"):
        assert csv.field_size_limit() == limit
        assert fields == ["a.jpg", runs]
    assert csv.field_size_limit() == limit
