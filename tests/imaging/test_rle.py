"""Run lengths against a slow reference, by property, and against the challenge's own table."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carmask.errors import CarmaskError
from carmask.imaging.decode import decode_mask
from carmask.imaging.rle import RleError, decode_carvana, encode_carvana

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
    ("text", "words"),
    [
        ("1 3 5", "3 numbers"),
        ("0 3", "before pixel 1"),
        ("-4 3", "before pixel 1"),
        ("1 0", "empty"),
        ("1 -2", "empty"),
        ("12 2", "beyond the last pixel"),
        ("13 1", "beyond the last pixel"),
        ("1 3 3 2", "overlaps"),
        ("5 2 1 5", "overlaps"),
        ("4 1 4 1", "overlaps"),
        ("1 x", "'x' is none"),
        ("1.0 3", "'1.0' is none"),
        ("1e3 3", "'1e3' is none"),
        ("1_0 1", "'1_0' is none"),
        ("+1 1", "'+1' is none"),
        ("--1 1", "'--1' is none"),
        ("- 1", "'-' is none"),
        ("\u0661 1", "is none"),
        ("nan 1", "'nan' is none"),
        ("1 " + "9" * 400, "beyond any picture"),
        ("999999999999999999 999999999999999999", "beyond the last pixel"),
    ],
)
def test_bad_run_lengths_are_named(text, words):
    with pytest.raises(RleError) as caught:
        decode_carvana(text, (3, 4))
    assert words in str(caught.value)
    assert isinstance(caught.value, CarmaskError)
    assert len(str(caught.value)) < 250


def test_soft_masks_are_refused():
    with pytest.raises(ValueError, match="bool"):
        encode_carvana(np.zeros((3, 4), dtype=np.uint8))


def test_the_challenges_own_table(carvana):
    csv.field_size_limit(2**30)
    with (carvana / "train_masks.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    chosen = rows[:: max(1, len(rows) // 30)]
    assert len(chosen) >= 30
    for row in chosen:
        soft_HW = decode_mask(carvana / "train_masks" / row["img"].replace(".jpg", "_mask.gif")).soft_HW
        mask_HW = soft_HW == 255
        assert set(np.unique(soft_HW)) == {0, 255}
        assert encode_carvana(mask_HW) == row["rle_mask"], row["img"]
        np.testing.assert_array_equal(decode_carvana(row["rle_mask"], mask_HW.shape), mask_HW)
