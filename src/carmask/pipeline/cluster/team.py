"""The workers of a cluster, and jobs through them. Ray Data places, repeats and holds back; nothing of that is here."""

import math
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from carmask.errors import first_line
from carmask.pipeline.cluster.exchange import to_outcomes, to_tasks
from carmask.pipeline.cluster.order import ClusterError, Machine, Order, Scene
from carmask.pipeline.cluster.worker import Worker, describe
from carmask.pipeline.jobs import Jobs, PhotoOutcome
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.sinks import Sink
from carmask.pipeline.urls import URL

# So many photos go to a worker at once, or fewer, so that each has several turns: it is what a lost worker costs.
_MOST_PHOTOS = 64
_TURNS = 8
# One table waits at each worker while it does another.
_TABLES_AT_ONCE = 2
# So often photos are tried again whose worker was lost. Until a lost machine is noticed, some tries go by.
_RETRIES = 100
_ANSWER_S = 300.0
# Stores answer many at once, file systems read ahead.
_FETCHERS = 8
_READERS = 2


@dataclass(frozen=True)
class Team:
    """Workers on machines that agree. cores, gpus: of each worker. network: what they run, in words."""

    ray: Any
    scene: Scene
    machines: int
    workers: int
    cores: int
    gpus: int
    recipe: Provenance
    network: str

    @classmethod
    def gather(cls, ray: Any, scene: Scene) -> "Team":
        """Ask all machines of the cluster how they would make results.

        Raises:
            ClusterError: none has room for a worker, or they do not agree.

        """
        options = scene.networks.options
        found = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        gpus = int(options.device.startswith("cuda"))
        cores = _cores_beside_gpu(found.values()) if gpus else options.threads or 1
        room = {node: _room(has, cores, gpus) for node, has in found.items()}
        nodes = [node for node, workers in room.items() if workers]
        if not nodes:
            wanted = "a GPU" if gpus else f"{cores} core{'s' * (cores > 1)} for a worker (--threads)"
            has = ", ".join(f"{_count(one, 'CPU')} cores and {_count(one, 'GPU')} GPUs" for one in found.values())
            raise ClusterError(f"--cluster: none of its machines has {wanted}; they have {has}")
        machines = _ask(ray, scene, nodes, gpus)
        for machine in machines:
            machine.require(machines[0].recipe)
        return cls(ray, scene, len(nodes), sum(room.values()), cores, gpus, machines[0].recipe, machines[0].network)

    def describe(self) -> str:
        """The size in a few words."""
        each = "one GPU" if self.gpus else f"{self.cores} core{'s' * (self.cores > 1)}"
        return f"{self.workers} worker{'s' * (self.workers > 1)} of {each} on {self.machines} machine" + "s" * (
            self.machines > 1
        )

    def predict(self, store: Sink, *, batch_size: int) -> Generator[PhotoOutcome, None, None]:
        """Cut out every photo of a store; outcomes come as they are done. A photo whose worker is lost is tried again.

        Raises:
            ClusterError: no worker can go on, or the cluster is lost.

        """
        if not len(store.jobs):
            return
        threads = max(_FETCHERS if isinstance(self.scene.root, URL) else _READERS, self.cores)
        order = Order(self.scene, self.recipe, store.remote(), store.jobs.suffix, batch_size, threads)
        done = bytearray(len(store.jobs.photos.names))
        try:
            for table in self._tables(order, store.jobs, self._photos_at_once(len(store.jobs), batch_size)):
                for outcome in to_outcomes(table, store.jobs):
                    done[outcome.job.position] = True
                    yield outcome
        except self.ray.exceptions.RayError as error:
            raise ClusterError(
                f"the cluster was lost ({first_line(error)}); the same command goes on from here"
            ) from error
        for job in store.jobs:
            if not done[job.position]:
                cause = f"{job.origin}: every worker that had it was lost; the same command tries it again"
                yield PhotoOutcome(job, cause)

    def _photos_at_once(self, photos: int, batch_size: int) -> int:
        """In whole batches."""
        fair = math.ceil(photos / (_TURNS * self.workers * batch_size))
        return batch_size * max(1, min(fair, _MOST_PHOTOS // batch_size))

    def _tables(self, order: Order, jobs: Jobs, at_once: int) -> Iterator[Any]:
        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        # Workers refuse and fail in words: what fails without is lost with its worker, and the rest goes on.
        context.max_errored_blocks = -1
        tables = [
            to_tasks(jobs.only(jobs.positions[start : start + at_once])) for start in range(0, len(jobs), at_once)
        ]
        workers = min(self.workers, len(tables))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            dataset = data.from_blocks(tables).map_batches(
                Worker,
                fn_constructor_args=(self.ray.put(order),),
                batch_size=None,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_TABLES_AT_ONCE),
                num_cpus=self.cores,
                num_gpus=self.gpus,
                max_task_retries=_RETRIES,
            )
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _ask(ray: Any, scene: Scene, nodes: list[str], gpus: int) -> list[Machine]:
    """What the machines say; one that is lost meanwhile says nothing.

    Raises:
        ClusterError: none says anything, or one does not have carmask.

    """
    # They answer also where other work has all cores.
    ask = ray.remote(num_cpus=0, num_gpus=gpus / 100)(describe)
    here = ray.put(scene)
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = [ask.options(scheduling_strategy=strategy(node, soft=False)).remote(here) for node in nodes]
    answers: list[Machine] = []
    cause = ""
    until_s = time.monotonic() + _ANSWER_S
    for answer in asked:
        try:
            answers.append(ray.get(answer, timeout=max(0.0, until_s - time.monotonic())))
        except ray.exceptions.RayError as error:
            cause = first_line(error)
            if "No module named 'carmask'" in str(error):
                raise ClusterError(
                    "--cluster: a machine does not have carmask; install the same version of it on all of them"
                ) from error
    if not answers:
        raise ClusterError(f"--cluster: no machine says what it has ({cause}); look at `ray status`")
    return answers


def _room(has: dict[str, float], cores: int, gpus: int) -> int:
    """How many workers a machine has room for."""
    room = _count(has, "CPU") // cores
    return min(room, _count(has, "GPU")) if gpus else room


def _cores_beside_gpu(machines: Iterable[dict[str, float]]) -> int:
    """The cores of each worker that has a GPU."""
    shares = [_count(has, "CPU") // _count(has, "GPU") for has in machines if _count(has, "GPU")]
    return max(1, min(shares, default=1))


def _count(has: dict[str, float], kind: str) -> int:
    return int(has.get(kind, 0))
