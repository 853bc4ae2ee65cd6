"""`carmask predict --cluster`: the same plan, done by many machines."""

from pathlib import Path

from carmask.cli.network import NetworkOptions
from carmask.cli.results import ResultReporter
from carmask.imaging.masks import Regions
from carmask.pipeline.cluster.connection import joined
from carmask.pipeline.cluster.networks import Networks
from carmask.pipeline.cluster.order import ClusterError, Scene
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
    """See `carmask.cli.predict.predict`; the exit status.

    Raises:
        CarmaskError: there is no such cluster, or it cannot do what is asked for.

    """
    plan = reporter.plan
    if plan.of_one:
        raise ClusterError("--cluster: is for many photos; leave it out for one")
    networks = Networks.read(
        network.model, network.run, tta=network.tta, tile=network.tile, threshold=network.threshold
    )
    scene = Scene(networks, regions, str(Path.cwd()), plan.jobs.photos.root)
    with joined(address) as ray:
        # It defines what runs on other machines with what comes with Ray.
        from carmask.pipeline.cluster.team import Team

        team = Team.gather(ray, scene)
        reporter.say(f"{team.network}; {team.describe()}")
        reporter.say_skipped()
        with reporter.running("cutting out"), plan.open_sink(team.recipe, overwrite=overwrite) as sink:
            summary = collect_outcomes(team.predict(sink, batch_size=batch_size), plan, sink, reporter)
    return reporter.finish(summary)
