"""The service's limits; each is an option of `carmask serve`. Imports nothing that is slow to import."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MB = 1_000_000

# The most memory that a pixel of a photo takes while a picture is drawn (the photo, its probability, the result, its
# encoding), as measured in all kinds and formats but comparisons.
DRAWING_BYTES_PER_PX = 40


class ServiceLimits(BaseModel):
    """The limits of requests, connections, memory and batches. Sizes are in bytes, or in MB of 1,000,000 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=32_000_000, ge=1024, description="Bytes of a request; more are refused with 413.")
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        description="Pixels of a photo, read from its header; more are refused with 422 before it is decoded.",
    )
    max_parts: int = Field(default=16, ge=1, description="Parts of a form; more are refused with 400.")
    max_field_bytes: int = Field(default=1000, ge=16, description="Bytes of a text field; more are refused with 400.")
    max_header_bytes: int = Field(
        default=16_384, ge=1024, description="Bytes of the request line and headers; more are refused with 431."
    )
    header_timeout_s: float = Field(default=10, gt=0, description="Seconds for the headers to arrive; then 408.")
    body_timeout_s: float = Field(default=60, gt=0, description="Seconds for the body to arrive; then 408.")
    answer_timeout_s: float = Field(
        default=120,
        gt=0,
        description="Seconds for the client to read the response; then the connection is cut. A response with several "
        "photos is sent while they are segmented, and that time may count too.",
    )
    keep_alive_s: int = Field(default=15, ge=1, description="Seconds that a connection may be idle between requests.")
    shutdown_s: int = Field(default=30, ge=1, description="Seconds to finish the requests in progress when stopped.")
    max_connections: int = Field(default=512, ge=1, description="Open connections; more are refused with 503.")
    max_requests: int = Field(default=128, ge=1, description="Requests in progress; more are refused with 503.")
    queue: int = Field(default=64, ge=1, description="Photos in progress or waiting; more are refused with 503.")
    uploads_mb: int = Field(default=256, ge=1, description="Memory for requests' bytes; more are refused with 503.")
    work_mb: int = Field(
        default=2000,
        ge=1,
        description="Memory for photos while they are decoded and drawn; others wait for it, and one that takes more "
        "alone is refused with 422.",
    )

    batch_size: int = Field(default=4, ge=1, description="Most photos in a batch.")
    batch_wait_ms: float = Field(
        default=4, ge=0, description="Milliseconds that a photo waits for others in its batch."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Threads that decode photos, and as many that draw results; default: one for each processor.",
    )

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        needed_mb = -(-self.max_pixels * DRAWING_BYTES_PER_PX // MB)
        if self.work_mb < needed_mb:
            raise ValueError(
                f"--work-mb {self.work_mb}: a photo of {self.max_pixels:,} pixels takes up to {needed_mb} MB; raise "
                "it, or lower --max-pixels"
            )
        if self.uploads_mb * MB < self.max_bytes:
            raise ValueError(
                f"--uploads-mb {self.uploads_mb}: is less than one request may have (--max-bytes {self.max_bytes}); "
                "raise it, or lower --max-bytes"
            )
        return self
