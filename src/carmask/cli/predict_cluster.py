"""`carmask predict --cluster`: the same plan, done by many machines."""

from pathlib import Path

from carmask.cli.network import NetworkOptions
from carmask.cli.results import Reporter
from carmask.imaging.masks import Regions
from carmask.pipeline.cluster.connection import joined
from carmask.pipeline.cluster.networks import Networks
from carmask.pipeline.cluster.order import ClusterError, Scene


def predict_on_cluster(
    address: str, reporter: Reporter, network: NetworkOptions, regions: Regions, batch_size: int, *, overwrite: bool
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
        reporter.say_left_out()
        with plan.open_sink(team.recipe, overwrite=overwrite) as store:
            return reporter.follow(team.predict(store, batch_size=batch_size), store, "cutting out")
