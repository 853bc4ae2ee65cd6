"""What threads do for one photo: decode it, and draw the answer, in bounded memory."""

import time
from dataclasses import dataclass, field

from carmask.imaging.decode import UnreadableImage
from carmask.imaging.image_file import open_image
from carmask.pipeline.kinds import OF_PHOTO
from carmask.result import Result
from carmask.segmenter import Fitted, Raw, Segmenter
from carmask.serving.answers import Answer, describe, draw, headers_of, wants_json
from carmask.serving.form import Upload
from carmask.serving.memory import Memory
from carmask.serving.metrics import Metrics
from carmask.serving.settings import DECODING_BYTES_PER_PX, DRAWING_BYTES_PER_PX, MASKING_BYTES_PER_PX
from carmask.serving.wishes import Wish


class Abandoned(Exception):
    """Nobody waits for this photo any more."""


@dataclass
class Work:
    """One photo on its way. is_abandoned: nobody waits for it any more."""

    photo: Upload
    wish: Wish
    request_id: str
    arrived_s: float = field(default_factory=time.perf_counter)
    is_abandoned: bool = False


class Bench:
    """Where the work is done. Everything here may run in any thread, and takes its memory before it begins."""

    def __init__(self, segmenter: Segmenter, memory: Memory, metrics: Metrics, *, max_pixels: int) -> None:
        self._segmenter = segmenter
        self._memory = memory
        self._metrics = metrics
        self._max_pixels = max_pixels

    def decode(self, work: Work) -> Fitted:
        """Decode a photo and fit it to the networks.

        Raises:
            UnreadableImage: it is no picture that can be read; TooManyPixels, it is too large.
            Abandoned: nobody waits for it.

        """
        with self._memory.wait_for(self._pixels(work.photo) * DECODING_BYTES_PER_PX):
            if work.is_abandoned:
                raise Abandoned
            with self._metrics.stage_seconds.labels("decode").time():
                try:
                    return self._segmenter.fit(self._segmenter.decode(work.photo.data))
                except UnreadableImage as error:
                    raise type(error)(work.photo.name, error.cause, error.advice) from error

    def finish(self, work: Work, fitted: Fitted, raw: Raw) -> Answer:
        """Bring what the networks found to the photo's size, and draw what was asked for.

        Raises:
            CarmaskError: the picture behind the vehicle cannot be read, or the result cannot be encoded.
            Abandoned: nobody waits for it.

        """
        height, width = fitted.size_HW
        is_drawn = work.wish.kind in OF_PHOTO and not wants_json(work.wish)
        size_bytes = height * width * (DRAWING_BYTES_PER_PX if is_drawn else MASKING_BYTES_PER_PX)
        if is_drawn and work.wish.backdrop is not None:
            size_bytes += self._pixels(work.wish.backdrop) * DECODING_BYTES_PER_PX
        share = self._memory.wait_for(size_bytes)
        try:
            if work.is_abandoned:
                raise Abandoned
            with self._metrics.stage_seconds.labels("draw").time():
                body, headers, is_empty = self._answer(work, fitted, raw)
        except BaseException:
            share.close()
            raise
        # Clients may be slow to take an answer, and until then its bytes are here.
        share.shrink(len(body))
        return Answer(body, work.wish.media_type, headers, is_empty, share.close)

    def _answer(self, work: Work, fitted: Fitted, raw: Raw) -> tuple[bytes, dict[str, str], bool]:
        wish = work.wish
        threshold = self._segmenter.threshold if wish.threshold is None else wish.threshold
        probability_HW = wish.regions.keep(self._segmenter.restore(fitted, raw), threshold)
        found = Result(probability_HW, threshold)
        picture = None if wants_json(wish) else draw(work.photo, wish, found, max_pixels=self._max_pixels)
        seconds = time.perf_counter() - work.arrived_s
        body = picture
        if body is None:
            body = describe(found, self._segmenter.name, seconds=seconds, request_id=work.request_id)
        return body, headers_of(found, seconds), found.box_px is None

    def _pixels(self, upload: Upload) -> int:
        """How many pixels a picture has, by its header."""
        with open_image(upload.data, max_pixels=self._max_pixels, name=upload.name) as image:
            return image.width * image.height
