"""Find photos that are in a data set twice, and photos that are, slightly changed, on both sides of a split."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair
from carmask.imaging.decode import Photo, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, plan

# JPEGs are decoded at the smallest exact scale that keeps this many pixels. For Carvana's photos that is a half, since
# 1918 px cannot be divided by more (see `decode_photo`).
REDUCED_HW = (96, 128)
_SIGNATURE = Geometry(height_px=16, width_px=24)
# Root mean square difference of two 16 x 24 px thumbnails, in gray levels 0..255. Photos saved again, as JPEG of
# quality 60 or at half size, differ by at most 1.2, copies found in the wild (other crop, other watermark) by 0.5 to
# 2.9; the two most alike of 1,008 different Carvana photos, two cars in one pose, by 6.8.
NEAR_LEVELS = 3.0
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Signature:
    """A photo's digest and thumbnail, to compare it with others.

    digest: of the size and the decoded (reduced) pixels. thumbnail_HWC: uint8 RGB, 16 x 24 px.
    """

    digest: bytes
    thumbnail_HWC: NDArray[np.uint8]


def signature_of(photo: Photo) -> Signature:
    """Compute the signature of a photo that was decoded with `at_least_HW=REDUCED_HW`."""
    digest = hashlib.sha256(repr((photo.size_HW, photo.image_HWC.shape)).encode())
    digest.update(np.ascontiguousarray(photo.image_HWC).data)
    return Signature(digest.digest(), fit_image(photo.image_HWC, plan(photo.size_HW, _SIGNATURE)))


def same_pictures(pairs: Mapping[str, Pair], signatures: Mapping[str, Signature]) -> list[list[str]]:
    """Return sets of two or more ids whose photos have the same pixels; the files may differ in metadata.

    Photos whose reduced pixels agree are decoded at full size and compared again.
    """
    alike = _by_digest({id_: signature.digest for id_, signature in signatures.items()})
    same: list[list[str]] = []
    for ids in alike:
        whole = {id_: hashlib.sha256(decode_photo(pairs[id_].image).image_HWC.tobytes()).digest() for id_ in ids}
        same += _by_digest(whole)
    return same


def near_pictures(
    signatures: Mapping[str, Signature], train: Sequence[str], validation: Sequence[str]
) -> list[tuple[str, str, float]]:
    """Return (validation id, train id, difference in gray levels) of photos that differ only in their encoding.

    Each validation photo is returned once at most, with the training photo most similar to it.
    """
    if not train or not validation:
        return []
    train_NK = _thumbnails(signatures, train)
    length_N = np.einsum("nk,nk->n", train_NK, train_NK)
    near = []
    for start in range(0, len(validation), _BLOCK_ROWS):
        ids = validation[start : start + _BLOCK_ROWS]
        block_MK = _thumbnails(signatures, ids)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab turns all distances into one matrix product.
        square_MN = np.einsum("mk,mk->m", block_MK, block_MK)[:, None] + length_N - 2 * block_MK @ train_NK.T
        nearest_M = square_MN.argmin(axis=1)
        for id_, row_K, nearest in zip(ids, block_MK, nearest_M.tolist(), strict=True):
            levels = float(np.sqrt(np.mean((row_K - train_NK[nearest]) ** 2)))
            if levels <= NEAR_LEVELS:
                near.append((id_, train[nearest], levels))
    return near


def _thumbnails(signatures: Mapping[str, Signature], ids: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([signatures[id_].thumbnail_HWC.ravel() for id_ in ids]).astype(np.float32)


def _by_digest(digest_of: Mapping[str, bytes]) -> list[list[str]]:
    ids_of: dict[bytes, list[str]] = defaultdict(list)
    for id_, digest in digest_of.items():
        ids_of[digest].append(id_)
    return [sorted(ids) for ids in ids_of.values() if len(ids) > 1]
