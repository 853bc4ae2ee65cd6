"""What runs on the machines of a cluster: one `Segmenter` in each worker, and the pipeline of one machine around it."""

import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from carmask.errors import CarmaskError
from carmask.pipeline.cluster.exchange import defect, refusal, to_jobs, to_table
from carmask.pipeline.cluster.order import Machine, Order, Scene
from carmask.pipeline.predict import predict_jobs

if TYPE_CHECKING:
    import pyarrow as pa

    from carmask.segmenter import Segmenter


def describe(scene: Scene) -> Machine:
    """Say how results would be made on this machine, or why they cannot be."""
    try:
        with scene.entered() as segmenter:
            return Machine.here(scene, segmenter)
    except CarmaskError as error:
        return Machine.unfit(error)


class Worker:
    """Does tables of jobs, with one `Segmenter` that is loaded once."""

    def __init__(self, order: Any) -> None:
        import ray

        self._order: Order = ray.get(order)
        # A segmenter belongs to one thread, and Ray does not promise that one thread calls.
        self._thread = ThreadPoolExecutor(1, "network")
        self._segmenter: Segmenter | None = None

    def __call__(self, tasks: "pa.Table") -> "pa.Table":
        """Do the jobs; what became of each, in their order."""
        return self._thread.submit(self._work, tasks).result()

    def _work(self, tasks: "pa.Table") -> "pa.Table":
        order = self._order
        try:
            if self._segmenter is None:
                self._segmenter = self._load()
            jobs = to_jobs(tasks, order.scene.root, order.suffix)
            with order.sink.open() as put:
                return to_table(
                    predict_jobs(
                        jobs,
                        self._segmenter,
                        put,
                        regions=order.scene.regions,
                        batch_size=order.batch_size,
                        workers=order.threads,
                    )
                )
        except CarmaskError as error:
            return refusal(f"{socket.gethostname()}: {error}")
        except Exception:  # noqa: BLE001 - Ray would try again what always fails, and not say where
            return defect(traceback.format_exc())

    def _load(self) -> "Segmenter":
        with self._order.scene.entered() as segmenter:
            # A machine that came later has not been asked before.
            Machine.here(self._order.scene, segmenter).require(self._order.recipe)
            return segmenter
