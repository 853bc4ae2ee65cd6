"""What the service allows: every limit, each an option of `carmask serve`. Imports nothing that takes time."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from carmask.errors import CarmaskError

MB = 1_000_000

# The most memory that a pixel of a photo takes: while the photo is decoded; while its mask is made at full size; and
# while a picture is drawn of it (the photo, its probability, the result, its encoding). Measured on 24 megapixels in
# all formats and kinds; a JPEG, which is decoded reduced, takes less than one byte.
DECODING_BYTES_PER_PX = 18
MASKING_BYTES_PER_PX = 12
DRAWING_BYTES_PER_PX = 34


class Limits(BaseModel):
    """How much of everything the service takes. Sizes are in bytes, or in MB of 1,000,000 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(
        default=32_000_000, ge=1024, description="Bytes of one request; refused while it arrives with 413."
    )
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=100_000_000,
        description="Pixels of one photo, told by its header before it is decoded; refused with 422.",
    )
    max_parts: int = Field(default=16, ge=1, description="Parts of a form; refused with 400.")
    max_field_bytes: int = Field(default=1000, ge=16, description="Bytes of a form's field; refused with 400.")
    max_header_bytes: int = Field(default=16_384, ge=1024, description="Bytes of a request's head; refused with 431.")
    header_timeout_s: float = Field(default=10, gt=0, description="Seconds for a request's head to arrive; then 408.")
    body_timeout_s: float = Field(default=60, gt=0, description="Seconds for a request's body to arrive; then 408.")
    answer_timeout_s: float = Field(
        default=120, gt=0, description="Seconds for a client to take its answer; then the connection is cut."
    )
    keep_alive_s: int = Field(default=15, ge=1, description="Seconds that a connection may rest between two requests.")
    shutdown_s: int = Field(default=30, ge=1, description="Seconds to finish what is there when told to stop.")
    max_connections: int = Field(default=512, ge=1, description="Open connections; more are refused with 503.")
    max_requests: int = Field(default=128, ge=1, description="Requests at the same time; more are refused with 503.")
    queue: int = Field(default=64, ge=1, description="Photos at work or waiting for it; more are refused with 503.")
    uploads_mb: int = Field(
        default=256, ge=1, description="Memory for what arrives and is not answered yet; more is refused with 503."
    )
    work_mb: int = Field(
        default=2000, ge=1, description="Memory for photos while they are decoded and drawn; others wait for it."
    )

    def check(self) -> None:
        """Refuse limits that do not go together.

        Raises:
            CarmaskError: the largest photo would never get the memory that it needs.

        """
        needed_mb = -(-self.max_pixels * DRAWING_BYTES_PER_PX // MB)
        if self.work_mb < needed_mb:
            raise CarmaskError(
                f"--work-mb {self.work_mb}: a photo of {self.max_pixels:,} pixels takes up to {needed_mb} MB; allow "
                "more memory, or fewer --max-pixels"
            )
        if self.uploads_mb * MB < self.max_bytes:
            raise CarmaskError(
                f"--uploads-mb {self.uploads_mb}: is less than one request may have (--max-bytes {self.max_bytes}); "
                "allow more memory, or fewer bytes"
            )


@dataclass(frozen=True)
class Batching:
    """How photos share the network.

    batch_size: photos that pass through it together. wait_ms: how long a photo waits for others to join it. workers:
    threads that decode, and as many that draw; one for each processor if not given.
    """

    batch_size: int = 4
    wait_ms: float = 4
    workers: int | None = None
