"""`carmask predict --cluster`: the same plan, carried out by a Ray cluster."""

from carmask.cli.network import NetworkOptions
from carmask.cli.results import ResultReporter
from carmask.imaging.masks import Regions
from carmask.pipeline.cluster.connection import connect
from carmask.pipeline.cluster.job import ClusterError, ClusterJob
from carmask.pipeline.summary import collect_outcomes


def predict_on_cluster(
    address: str,
    reporter: ResultReporter,
    network: NetworkOptions,
    regions: Regions,
    batch_size: int,
    *,
    overwrite: bool,
) -> int:
    """Do the work of `carmask.cli.predict.predict`; the exit status.

    Raises:
        CarmaskError: the cluster cannot be used.

    """
    plan = reporter.plan
    if plan.of_one:
        raise ClusterError("--cluster: is for many photos; leave it out for one")
    job = ClusterJob.plan(
        network.model,
        plan.jobs.photos.root,
        options=network.run,
        regions=regions,
        tta=network.tta,
        tile=network.tile,
        threshold=network.threshold,
    )
    with connect(address) as ray:
        # Imports pyarrow, which comes with Ray.
        from carmask.pipeline.cluster.workers import RayWorkers

        workers = RayWorkers.gather(ray, job)
        reporter.say(f"{workers.network}; {workers.describe()}")
        reporter.say_skipped()
        with reporter.running("cutting out"), plan.open_sink(workers.provenance, overwrite=overwrite) as sink:
            summary = collect_outcomes(workers.predict(sink, batch_size=batch_size), plan, sink, reporter)
    return reporter.finish(summary)
