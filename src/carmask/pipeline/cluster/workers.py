"""Workers on the machines of a Ray cluster, and photos through them. Ray Data places, retries and limits the work."""

import math
import pickle
import socket
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from carmask.errors import CarmaskError, first_line
from carmask.pipeline.cluster.job import ClusterError, ClusterJob, MachineReport, report_machine
from carmask.pipeline.jobs import Job, PhotoOutcome
from carmask.pipeline.predict import predict_jobs
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.sinks import OpenRemotely, Sink
from carmask.pipeline.urls import URL
from carmask.segmenter import Segmenter

# A table holds at most this many photos, which a lost worker costs, and few enough that each worker gets several.
_MAX_PHOTOS = 64
_TABLES_PER_WORKER = 8
# One table waits at each worker while it processes another.
_TABLES_IN_FLIGHT = 2
# How often photos of a lost worker are retried. Until a lost machine is noticed, some retries fail too.
_RETRIES = 100
_REPORT_TIMEOUT_S = 300.0
# Object stores serve many requests in parallel, file systems read ahead.
_URL_THREADS = 8
_FILE_THREADS = 2


class PhotoWorker:
    """A Ray actor that processes tables of jobs with one segmenter, like `carmask predict` on one machine."""

    def __init__(self, job: Any, open_sink: Any, provenance: Provenance, batch_size: int, threads: int) -> None:
        """Get the job, and what opens the sink, from Ray's object store.

        threads: for decoding, and as many for encoding, besides those of the network.
        """
        import ray

        self._job: ClusterJob = ray.get(job)
        self._open_sink: OpenRemotely = ray.get(open_sink)
        self._provenance = provenance
        self._batch_size = batch_size
        self._threads = threads
        self._segmenter: Segmenter | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Process lists of jobs; returns a list of outcomes for each, or the error that ends the run."""
        return _to_table(self._process(jobs) for jobs in _from_table(table))

    def _process(self, jobs: list[Job]) -> list[PhotoOutcome] | Exception:
        try:
            with self._job.working_folder():
                if self._segmenter is None:
                    segmenter, report = self._job.load()
                    # A machine that joined the cluster later has not been asked yet.
                    report.require(self._provenance)
                    self._segmenter = segmenter
                with self._open_sink() as put:
                    outcomes = predict_jobs(
                        jobs,
                        self._segmenter,
                        put,
                        regions=self._job.regions,
                        batch_size=self._batch_size,
                        workers=self._threads,
                    )
                    # The jobs of the outcomes hold downloaded photos, which must not be sent.
                    return [
                        replace(outcome, job=replace(job, remark=outcome.job.remark))
                        for outcome, job in zip(outcomes, jobs, strict=True)
                    ]
        except CarmaskError as error:
            return ClusterError(f"{socket.gethostname()}: {error}")
        except Exception:  # noqa: BLE001 - Ray would retry what always fails, without a traceback
            return RuntimeError(f"in a worker:\n{traceback.format_exc()}")


class RayWorkers:
    """Workers on machines that would all make the same results."""

    def __init__(self, ray: Any, job: ClusterJob) -> None:
        """Find the machines with resources for a worker, and check that all would make the same results.

        Raises:
            ClusterError: no machine has enough resources, or their results would differ.
        """
        options = job.options
        # Whole cores and GPUs by node; a missing kind counts as 0.
        nodes = {
            node["NodeID"]: Counter({kind: int(amount) for kind, amount in node["Resources"].items()})
            for node in ray.nodes()
            if node["Alive"]
        }
        gpus = int(options.device.startswith("cuda"))
        cores = options.threads or 1
        if gpus:  # as many cores for each worker as the machine with the fewest for each GPU has
            cores = max(1, min((one["CPU"] // one["GPU"] for one in nodes.values() if one["GPU"]), default=1))
        capacity = {
            node: min(one["CPU"] // cores, one["GPU"]) if gpus else one["CPU"] // cores for node, one in nodes.items()
        }
        usable = [node for node, workers in capacity.items() if workers]
        if not usable:
            needed = "a GPU" if gpus else f"{cores} core{'s' * (cores > 1)} for a worker (--threads)"
            found = ", ".join(f"{one['CPU']} cores and {one['GPU']} GPUs" for one in nodes.values())
            raise ClusterError(f"--cluster: none of its machines has {needed}; they have {found}")
        reports = _collect_reports(ray, job, usable, gpus)
        first = reports[0]
        for report in reports:
            report.require(first.provenance)
        self.ray, self.job = ray, job
        self.machines, self.workers = len(usable), sum(capacity.values())
        # Of each worker.
        self.cores, self.gpus = cores, gpus
        self.provenance = first.provenance
        self._network = first.network

    def describe(self) -> str:
        """The networks, and the number of workers and machines, in words."""
        each = "one GPU" if self.gpus else f"{self.cores} core{'s' * (self.cores > 1)}"
        machines = f"{self.machines} machine{'s' * (self.machines > 1)}"
        return f"{self._network}; {self.workers} worker{'s' * (self.workers > 1)} of {each} on {machines}"

    def predict(self, sink: Sink, *, batch_size: int) -> Generator[PhotoOutcome, None, None]:
        """Segment every photo of a sink; outcomes come as they are done. Photos of a lost worker are retried.

        Raises:
            ClusterError: no worker can continue, or the cluster is lost.
            RuntimeError: the program itself failed in a worker.
        """
        if not len(sink.jobs):
            return
        done = bytearray(len(sink.jobs.photos.names))
        try:
            for table in self._run(sink, batch_size):
                for outcomes in _from_table(table):
                    if isinstance(outcomes, Exception):
                        raise outcomes
                    for outcome in outcomes:
                        done[outcome.job.position] = True
                        yield outcome
        except self.ray.exceptions.RayError as error:
            raise ClusterError(
                f"the cluster was lost ({first_line(error)}); run the same command again to continue"
            ) from error
        for job in sink.jobs:
            if not done[job.position]:
                cause = f"{job.origin}: every worker that tried it was lost; run the same command again to retry"
                yield PhotoOutcome(job, cause)

    def _run(self, sink: Sink, batch_size: int) -> Iterator[pa.Table]:
        """Send tables of jobs, in whole batches, to the workers; yields the tables of their outcomes."""
        jobs = sink.jobs
        batches = math.ceil(len(jobs) / (_TABLES_PER_WORKER * self.workers * batch_size))
        size = batch_size * max(1, min(batches, _MAX_PHOTOS // batch_size))
        starts = range(0, len(jobs), size)
        tables = [_to_table([list(jobs.only(jobs.positions[start : start + size]))]) for start in starts]
        threads = max(_URL_THREADS if isinstance(self.job.root, URL) else _FILE_THREADS, self.cores)
        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        # Workers report errors in their tables. Only a lost worker fails a block, and the other blocks go on.
        context.max_errored_blocks = -1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            dataset = data.from_blocks(tables).map_batches(
                PhotoWorker,
                fn_constructor_args=(
                    self.ray.put(self.job),
                    self.ray.put(sink.remote()),
                    self.provenance,
                    batch_size,
                    threads,
                ),
                batch_size=None,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(
                    size=min(self.workers, len(tables)), max_tasks_in_flight_per_actor=_TABLES_IN_FLIGHT
                ),
                num_cpus=self.cores,
                num_gpus=self.gpus,
                max_task_retries=_RETRIES,
            )
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _to_table(values: Iterable[Any]) -> pa.Table:
    """Return a table for Ray Data with a value in each row, pickled."""
    return pa.table({"pickled": pa.array([pickle.dumps(value) for value in values], pa.binary())})


def _from_table(table: pa.Table) -> Iterator[Any]:
    return (pickle.loads(data) for data in table["pickled"].to_pylist())  # noqa: S301 - Ray pickles all else too


def _collect_reports(ray: Any, job: ClusterJob, nodes: list[str], gpus: int) -> list[MachineReport]:
    """Ask machines for their reports; machines that are lost meanwhile are skipped.

    Raises:
        ClusterError: none answers, or one does not have carmask.
    """
    # Without CPUs of its own the task also runs where other work has all cores.
    remote = ray.remote(num_cpus=0, num_gpus=gpus / 100)(report_machine)
    job_ref = ray.put(job)
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    pending = [remote.options(scheduling_strategy=strategy(node, soft=False)).remote(job_ref) for node in nodes]
    reports: list[MachineReport] = []
    cause = ""
    deadline_s = time.monotonic() + _REPORT_TIMEOUT_S
    for report in pending:
        try:
            reports.append(ray.get(report, timeout=max(0.0, deadline_s - time.monotonic())))
        except ray.exceptions.RayError as error:
            cause = first_line(error)
            if "No module named 'carmask'" in str(error):
                raise ClusterError(
                    "--cluster: a machine does not have carmask; install the same version on all of them"
                ) from error
    if not reports:
        raise ClusterError(f"--cluster: no machine answers ({cause}); look at `ray status`")
    return reports
