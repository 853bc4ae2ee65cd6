"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from carmask import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "carmask_requests", "Answers, by address and status", ["address", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "carmask_request_seconds",
            "From a request's head to the end of its answer",
            ["address"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refusals = Counter(
            "carmask_refusals", "Requests that were not served, by cause", ["cause"], registry=registry
        )
        self.photos = Counter("carmask_photos", "Photos cut out, by kind of result", ["kind"], registry=registry)
        self.empty_photos = Counter("carmask_photos_without_vehicle", "Photos with an empty mask", registry=registry)
        self.clients_gone = Counter(
            "carmask_clients_gone", "Clients that left before they had their answer", registry=registry
        )
        self.stage_seconds = Histogram(
            "carmask_stage_seconds",
            "Work on one photo (decode, draw) or on one batch (network), waiting not counted",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_photos = Histogram(
            "carmask_batch_photos",
            "Photos that passed through the network together",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
            registry=registry,
        )
        self.requests_now = Gauge("carmask_requests_now", "Requests that are not answered yet", registry=registry)
        self.connections_now = Gauge("carmask_connections_now", "Open connections", registry=registry)
        self.photos_now = Gauge("carmask_photos_now", "Photos at work or waiting for it", registry=registry)
        self.queue_photos = Gauge("carmask_queue_photos", "Photos that wait for the network", registry=registry)
        self.upload_bytes = Gauge(
            "carmask_upload_bytes", "Bytes that arrived and are not answered yet", registry=registry
        )
        self.work_bytes = Gauge(
            "carmask_work_bytes", "Bytes set aside for photos at work and answers", registry=registry
        )
        self.ready = Gauge("carmask_ready", "1 when photos can be cut out", registry=registry)
        Gauge("carmask_build_info", "The version that runs", ["version"], registry=registry).labels(__version__).set(1)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
