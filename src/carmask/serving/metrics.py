"""The service's metrics, for Prometheus."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from carmask import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PHOTOS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class ServiceMetrics:
    """All metrics of one service, in their own registry."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        self.requests = counter("carmask_requests", "Responses, by address and status", ["address", "status"])
        description = "From the request's headers to the end of the response"
        self.request_seconds = histogram("carmask_request_seconds", description, ["address"], buckets=_SECONDS)
        self.errors = counter("carmask_refusals", "Requests that were refused, by error code", ["cause"])
        self.photos = counter("carmask_photos", "Photos segmented, by kind of result", ["kind"])
        self.empty_photos = counter("carmask_photos_without_vehicle", "Photos with an empty mask")
        self.clients_gone = counter("carmask_clients_gone", "Clients that disconnected before they had their response")
        description = "Work on one photo (decode, draw) or on one batch (network), without waiting"
        self.stage_seconds = histogram("carmask_stage_seconds", description, ["stage"], buckets=_SECONDS)
        self.batch_photos = histogram("carmask_batch_photos", "Photos in a batch of the network", buckets=_PHOTOS)
        self.requests_now = gauge("carmask_requests_now", "Requests in progress")
        self.connections_now = gauge("carmask_connections_now", "Open connections")
        self.photos_now = gauge("carmask_photos_now", "Photos in progress or waiting")
        self.queue_photos = gauge("carmask_queue_photos", "Photos that wait for the network")
        self.upload_bytes = gauge("carmask_upload_bytes", "Bytes of requests in progress")
        self.work_bytes = gauge("carmask_work_bytes", "Bytes reserved for photos in progress and for responses")
        self.ready = gauge("carmask_ready", "1 when photos are accepted")
        gauge("carmask_build_info", "The version of carmask", ["version"]).labels(__version__).set(1)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
