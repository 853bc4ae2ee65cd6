"""The service's metrics, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from carmask import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServiceMetrics:
    """All metrics of one service, in their own registry."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "carmask_requests", "Responses, by address and status", ["address", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "carmask_request_seconds",
            "From the request's headers to the end of the response",
            ["address"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.errors = Counter(
            "carmask_refusals", "Requests that were refused, by error code", ["cause"], registry=registry
        )
        self.photos = Counter("carmask_photos", "Photos segmented, by kind of result", ["kind"], registry=registry)
        self.empty_photos = Counter("carmask_photos_without_vehicle", "Photos with an empty mask", registry=registry)
        self.clients_gone = Counter(
            "carmask_clients_gone", "Clients that disconnected before they had their response", registry=registry
        )
        self.stage_seconds = Histogram(
            "carmask_stage_seconds",
            "Work on one photo (decode, draw) or on one batch (network), without waiting",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_photos = Histogram(
            "carmask_batch_photos",
            "Photos in a batch of the network",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
            registry=registry,
        )
        self.requests_now = Gauge("carmask_requests_now", "Requests in progress", registry=registry)
        self.connections_now = Gauge("carmask_connections_now", "Open connections", registry=registry)
        self.photos_now = Gauge("carmask_photos_now", "Photos in progress or waiting", registry=registry)
        self.queue_photos = Gauge("carmask_queue_photos", "Photos that wait for the network", registry=registry)
        self.upload_bytes = Gauge("carmask_upload_bytes", "Bytes of requests in progress", registry=registry)
        self.work_bytes = Gauge(
            "carmask_work_bytes", "Bytes reserved for photos in progress and for responses", registry=registry
        )
        self.ready = Gauge("carmask_ready", "1 when photos are accepted", registry=registry)
        Gauge("carmask_build_info", "The version of carmask", ["version"], registry=registry).labels(__version__).set(1)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
