"""A Ray cluster of one-core nodes on this machine, and a process that has joined it.

Ray ends a process that has joined a cluster when it misses something of it, even after the cluster was shut down, and
says nothing. So pytest's own process stays without Ray: what joins is a process of its own, and only that.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from carmask.pipeline.cluster.connection import _without_dashboard, connect, folder_for_ray, quiet_ray
from carmask.pipeline.cluster.job import ClusterJob
from carmask.pipeline.jobs import PhotoOutcome
from carmask.pipeline.kinds import choose_kind, is_picture
from carmask.pipeline.outputs import Plan, plan_outputs
from carmask.pipeline.sources import find_photos
from carmask.pipeline.summary import RunSummary, collect_outcomes
from carmask.pipeline.urls import URL

# The network that takes the least time.
SMALL = ("small",)


def make_plan(source: Path, destination: Path | URL) -> Plan:
    kind = choose_kind(None, destination)
    return plan_outputs(find_photos(source, results=destination if is_picture(kind) else None), destination, kind)


class Joined:
    """Nodes without and with one core, and this process, which has joined them."""

    def __init__(self, nodes: int, folder: str) -> None:
        """Start the nodes, so many of them with a core, with their files in a folder."""
        with ExitStack() as stack:
            os.environ.update({"RAY_TMPDIR": folder, "HOME": folder})
            self.ray = stack.enter_context(quiet_ray())
            stack.enter_context(_without_dashboard(self.ray))
            from ray.cluster_utils import Cluster

            # A lost node is noticed in seconds, not in half a minute.
            system = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
            # Workers have their share of a busy machine, and wait for the next test: each takes a second to start.
            system |= {"worker_niceness": 0, "idle_worker_killing_time_threshold_ms": 600_000}
            # Nor are there more of Ray's own processes than its tasks need.
            head = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
            self.nodes = Cluster(initialize_head=True, head_node_args={**head, "_system_config": system})
            stack.callback(self.nodes.shutdown)
            for _ in range(nodes):
                self.nodes.add_node(num_cpus=1)
            stack.enter_context(connect(self.nodes.address, print))
            self._stack = stack.pop_all()

    def end(self) -> None:
        self._stack.close()

    def predict(
        self, source: Path, destination: Path | URL, models: tuple[str, ...], at_first: "Callable[[Joined], Any] | None"
    ) -> tuple[RunSummary, Any]:
        from carmask.pipeline.cluster.workers import RayWorkers

        returned: list[Any] = []

        def follow(outcomes: Iterator[PhotoOutcome], _todo: int) -> Iterator[PhotoOutcome]:
            for outcome in outcomes:
                if at_first is not None and not returned:
                    returned.append(at_first(self))
                yield outcome

        plan = make_plan(source, destination)
        workers = RayWorkers(self.ray, ClusterJob.plan(models, plan.jobs.photos.root))
        with plan.open_sink(workers.provenance, overwrite=False) as sink:
            summary = collect_outcomes(workers.predict(sink, batch_size=4), plan, sink, follow)
        return summary, next(iter(returned), None)

    def start_workers(self, job: ClusterJob) -> None:
        from carmask.pipeline.cluster.workers import RayWorkers

        RayWorkers(self.ray, job)

    def lose_one_node(self) -> None:
        """As when the plug is pulled: Ray's own processes, and with them its workers, which may outlive them."""
        node = next(iter(self.nodes.worker_nodes))
        processes = _processes_of(node)
        self.nodes.remove_node(node, allow_graceful=False)
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def lose_one_worker(self) -> None:
        """As when the system needs its memory."""
        processes = (process for node in self.nodes.worker_nodes for process in _processes_of(node))
        worker = next(process for process in processes if b"MapWorker" in Path(f"/proc/{process}/cmdline").read_bytes())
        os.kill(worker, signal.SIGKILL)


def _processes_of(node: Any) -> list[int]:
    """Return the workers of a node."""
    mark = f"RAY_RAYLET_PID={node.all_processes['raylet'][0].process.pid}\0".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


# In the process that has joined.
_joined: Joined


def _end_with_tests() -> None:
    """End this process when the one that has started it ends, however it does; Ray's processes end with this one."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _join(nodes: int, folder: str) -> str:
    global _joined
    _joined = Joined(nodes, folder)
    return str(_joined.nodes.address)


def _ask(method: Callable[..., Any], *arguments: Any) -> Any:
    return method(_joined, *arguments)


class Nodes:
    """What tests ask of the process that has joined."""

    def __init__(self, process: ProcessPoolExecutor, address: str) -> None:
        self.address = address
        self._process = process

    def predict(
        self,
        source: Path,
        destination: Path | URL,
        models: tuple[str, ...] = SMALL,
        at_first: Callable[[Joined], Any] | None = None,
    ) -> tuple[RunSummary, Any]:
        """Predict, and call `at_first` there at the first outcome; returns the summary, and what that returned."""
        found: tuple[RunSummary, Any] = self.ask(Joined.predict, source, destination, models, at_first)
        return found

    def ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return self._process.submit(_ask, method, *arguments).result()


@contextmanager
def running_nodes(nodes: int) -> Iterator[Nodes]:
    """Start a cluster with so many one-core nodes, and a process that joins it; both end with the block."""
    with (
        folder_for_ray() as folder,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=_end_with_tests) as process,
    ):
        cluster = Nodes(process, process.submit(_join, nodes, folder).result())
        try:
            yield cluster
        finally:
            cluster.ask(Joined.end)
