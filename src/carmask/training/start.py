"""From settings to a run: find the photos, split them, fill the cache, build the network, train."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from carmask.data.cache import Cache, CacheUnfinished, open_cache
from carmask.data.pairs import Dataset, describe_odd, describe_rules, find_pairs
from carmask.data.split import Split, make_split
from carmask.errors import CarmaskError
from carmask.explain import explain
from carmask.models.network import Network, NetworkConfig
from carmask.progress import progress_bar
from carmask.runtime.hardware import Hardware, set_up
from carmask.training.batches import seed_step
from carmask.training.checkpoint import load_checkpoint
from carmask.training.loop import Fit, TrainingData, epoch_steps
from carmask.training.memory import find_batch_size, keep_freed_memory
from carmask.training.reporter import Reporter, RunReporter, SilentReporter
from carmask.training.run import RunFolder
from carmask.training.settings import SettingsError, TrainSettings
from carmask.training.state import TrainingState, start_state
from carmask.training.team import Team
from carmask.training.trackers import check_trackers

# A stream of its own for the first weights, apart from those of the steps.
INITIAL_WEIGHTS_STEP = 2**32 - 1
SHOWN_LEFT_OUT = 20


@dataclass(frozen=True)
class _Materials:
    """What a run works with before anything is split or built."""

    hardware: Hardware
    dataset: Dataset
    cache: Cache

    def left_out(self) -> list[tuple[str, str]]:
        """What cannot be learnt from, each with the cause."""
        unpaired = [(problem.subject, f"{problem.kind}, {problem.detail}") for problem in self.dataset.problems]
        return unpaired + list(self.cache.failures.items())


@dataclass(frozen=True)
class Ready:
    """All that a run needs before its first step."""

    settings: TrainSettings
    hardware: Hardware
    materials: _Materials
    split: Split
    data: TrainingData
    state: TrainingState


@dataclass(frozen=True)
class Outcome:
    """A run's folder, which is there once photos are decoded, and whether the run reached its end or was stopped."""

    run: RunFolder
    finished: bool


def train(
    settings: TrainSettings,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> Outcome:
    """Train a network from the beginning. The run's folder says all about it.

    Args:
        settings: All about the run.
        console: Where it is spoken; the terminal when not given.
        team: The processes that train together; this one alone when not given.
        max_minutes: Stop in order after this time, so that the run can be resumed.

    Raises:
        CarmaskError: data, split or settings that cannot be used.

    """
    if settings.stages:
        raise CarmaskError("settings with stages make several runs: give them to carmask.training.series.train_series")
    until_s = _deadline(max_minutes)
    team = team or Team()
    console = _console_of(team, console)
    # In the words of the first process, for others may have begun in another working folder.
    settings = team.from_first(settings.with_absolute_paths)
    if settings.batch_size is not None:
        team.slice_of_batch(settings.batch_size)
    run = team.from_first(lambda: RunFolder.new(settings))
    if team.is_first:
        check_trackers(settings.trackers)
    try:
        ready = prepare(settings, team, console, until_s=until_s)
    except CacheUnfinished as error:
        return _stopped_before(run, error, console)
    if team.is_first:
        with run.being_made(ready.settings) as made:
            ready.split.save(made.split)
            made.write_left_out(ready.materials.left_out())
            # So that a run that dies in its first epoch can be resumed too.
            ready.state.save(made)
    return _run(ready, run, team, console, until_s)


def resume(
    folder: Path, console: Console | None = None, *, team: Team | None = None, max_minutes: float | None = None
) -> Outcome:
    """Go on with a run that was stopped, as if it had not been; see `train`.

    Raises:
        CarmaskError: the folder is no run, or its data or checkpoint cannot be used.

    """
    until_s = _deadline(max_minutes)
    team = team or Team()
    console = _console_of(team, console)
    run = team.from_first(lambda: RunFolder.existing(folder))
    # The run's folder need not be seen by every machine.
    settings, split = team.from_first(lambda: (TrainSettings.from_yaml(run.config), Split.load(run.split)))
    saved = team.from_first(lambda: load_checkpoint(run.checkpoint, console.print))
    team.slice_of_batch(settings.batch_size or team.count)
    if team.is_first:
        check_trackers(settings.trackers)
    try:
        ready = prepare(settings, team, console, split=split, until_s=until_s)
    except CacheUnfinished as error:
        return _stopped_before(run, error, console)
    ready.state.take(run, saved)
    if team.is_first:
        run.note_resumption()
    return _run(ready, run, team, console, until_s)


def train_or_resume(
    settings: TrainSettings,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> Outcome:
    """Begin the run of that name, or go on with it where it was begun: the same command, given until all is done.

    Raises:
        CarmaskError: as `train` and `resume`; also where the run was begun with other settings.

    """
    team = team or Team()
    # The run's folder need not be seen by every machine.
    begun = team.from_first(lambda: _begun(settings))
    if begun is None:
        return train(settings, console, team=team, max_minutes=max_minutes)
    return resume(begun, console, team=team, max_minutes=max_minutes)


def _begun(settings: TrainSettings) -> Path | None:
    """The folder of the run of that name, where it was begun with these settings; nothing where there is none."""
    if settings.name is None:
        raise CarmaskError("--resume auto goes on with the run of a --name, and none is given")
    run = RunFolder(settings.runs / settings.name)
    if not run.path.exists():
        return None
    began = TrainSettings.from_yaml(RunFolder.existing(run.path).config)
    changed = [name for name in settings.differences(began) if name != "batch_size" or settings.batch_size is not None]
    if changed:
        raise CarmaskError(
            f"{run.path}: was begun with another {', '.join(changed)}; give the same settings, or another --name"
        )
    return run.path


def prepare(
    settings: TrainSettings, team: Team, console: Console, *, split: Split | None = None, until_s: float | None = None
) -> Ready:
    """Find, cache and divide the photos, and build the network; nothing is written but the cache.

    `split` is that of a run which is gone on with: its network's weights come from elsewhere.

    Raises:
        CarmaskError: data, split or settings that cannot be used.
        CacheUnfinished: `time.monotonic()` was `until_s` before all photos were decoded, on one of the machines.

    """
    hardware = set_up(settings.hardware, local_rank=team.local_rank)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    is_new = split is None
    if split is None and settings.dataset.split is not None:
        split = team.from_first(partial(Split.load, settings.dataset.split))
    if split is not None:
        # Held against the photos before any of them is decoded.
        split.select(dataset.pairs)
    materials = _prepare(settings, hardware, dataset, team, console, until_s)
    split = split or _make_split(settings, materials)
    data = _select(split, materials)
    network = _new_network(settings, data)
    if is_new and settings.init is not None:
        team.from_first(partial(_take_weights, network, settings.init))
    network.to(hardware.device)
    # Those of the first process, for all.
    team.prepare(network)
    # The cache's name is a digest of the photos and of how they were fitted.
    photos = materials.cache.folder.name
    team.refuse_differences(photos, f"the photos and masks in {settings.data}")
    state = start_state(settings, network, hardware, photos=photos, photo_count=len(data.train))
    if settings.batch_size is None:
        settings = _with_batch_size(settings, state, data, hardware, team)
    return Ready(settings, hardware, materials, split, data, state)


def _stopped_before(run: RunFolder, error: CacheUnfinished, console: Console) -> Outcome:
    """What comes of a run that had no time for a step."""
    console.print(f"stopped before a step: {error}; that is kept for the next time", highlight=False, soft_wrap=True)
    return Outcome(run, finished=False)


def _deadline(max_minutes: float | None) -> float | None:
    return None if max_minutes is None else time.monotonic() + 60 * max_minutes


def _console_of(team: Team, console: Console | None) -> Console:
    return (console or Console()) if team.is_first else Console(quiet=True)


def _with_batch_size(
    settings: TrainSettings, state: TrainingState, data: TrainingData, hardware: Hardware, team: Team
) -> TrainSettings:
    """The settings with the batch size that fits here. It is written down: free memory may be another on resuming.

    Raises:
        SettingsError: what fits does not go with the other settings.

    """
    _, height, width, channels = data.cache.images_NHWC.shape
    each = find_batch_size(state.network, hardware, (channels, height, width), len(data.train) // team.count)
    # To be divided among the processes, and into parts.
    unit = math.lcm(team.count, settings.accumulate)
    size = -(-team.from_first(lambda: each) * team.count // unit) * unit
    try:
        # Checked like all that is written down: a run must not be begun with what it could not be resumed with.
        return TrainSettings.model_validate({**settings.model_dump(exclude={"config"}), "batch_size": size})
    except ValidationError as error:
        raise SettingsError(f"the batch size that fits here: {explain(error, TrainSettings)}") from error


def _run(ready: Ready, run: RunFolder, team: Team, console: Console, until_s: float | None) -> Outcome:
    settings, state, data = ready.settings, ready.state, ready.data
    reporter: Reporter = RunReporter(run, console, settings, data.cache) if team.is_first else SilentReporter()
    _introduce(ready, run, team, reporter)
    finished = Fit(state, settings, data, ready.hardware, run, reporter, team)(until_s=until_s)
    if finished:
        reporter.say(f"best Dice {state.best_dice:.5f} in epoch {state.best_epoch}: {run.weights('best')}")
    else:
        reporter.say(f"stopped after step {state.step}; go on with `carmask train --resume {run.path}`")
    return Outcome(run, finished)


def _prepare(
    settings: TrainSettings,
    hardware: Hardware,
    dataset: Dataset,
    team: Team,
    console: Console,
    until_s: float | None,
) -> _Materials:
    """Cache every pair; say how masks were read and which pairs cannot be used."""
    if hardware.device.type == "cpu":
        keep_freed_memory()

    def fill() -> Cache:
        with progress_bar(console, "decoding photos") as advance:
            return open_cache(
                dataset.pairs,
                settings.cache_recipe(),
                settings.dataset.cache,
                progress=advance,
                wants_stop=lambda: until_s is not None and time.monotonic() >= until_s,
            )

    cache = _filled(fill, team)
    materials = _Materials(hardware, dataset, cache)
    left_out = materials.left_out()
    for name, cause in left_out[:SHOWN_LEFT_OUT]:
        console.print(f"left out  {name}: {cause}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if len(left_out) > SHOWN_LEFT_OUT:
        console.print(f"left out  {len(left_out) - SHOWN_LEFT_OUT} more, all in the run's left_out.csv", style="yellow")
    for rule in describe_rules(cache.rules):
        console.print(f"masks     {rule}", highlight=False, markup=False, soft_wrap=True)
    odd = describe_odd(cache.odd)
    if odd is not None:
        console.print(f"masks     {odd}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if not cache.row_of:
        raise CarmaskError(f"{settings.data}: none of its {len(dataset.pairs)} pairs can be used; see `carmask check`")
    return materials


def _filled(fill: Callable[[], Cache], team: Team) -> Cache:
    """The cache, filled by the first process of each machine, and then opened by its others.

    Raises:
        CacheUnfinished: there was not enough time on one of the machines.

    """
    cache, unfinished = None, None
    if team.local_rank == 0:
        try:
            cache = fill()
        except CacheUnfinished as error:
            unfinished = str(error)
    told = [one for one in team.gather(unfinished) if one is not None]
    if told:
        raise CacheUnfinished(told[0])
    return cache or fill()


def _select(split: Split, materials: _Materials) -> TrainingData:
    """The usable pairs of both sides."""
    cache = materials.cache
    train, validation = (
        [pair for pair in side if pair.id in cache.row_of] for side in split.select(materials.dataset.pairs)
    )
    if not train or not validation:
        raise CarmaskError("one side of the split has no usable photo; make another with `carmask split`")
    return TrainingData(cache, train, validation)


def _make_split(settings: TrainSettings, materials: _Materials) -> Split:
    cache = materials.cache
    group_of = {pair.id: pair.group for pair in materials.dataset.pairs if pair.id in cache.row_of}
    options = settings.dataset
    return make_split(
        group_of,
        cache.area_of,
        folds=options.folds,
        fold=options.fold,
        fraction=options.fraction,
        seed=options.split_seed,
    )


def _new_network(settings: TrainSettings, data: TrainingData) -> Network:
    seed_step(settings.seed, INITIAL_WEIGHTS_STEP)
    config = NetworkConfig.from_preset(settings.preset)
    network = Network(config.model_copy(update={"unet": settings.unet(), "geometry": settings.geometry()}))
    network.note_training(
        {
            "data": settings.data.resolve().name,
            "photos": len(data.train),
            "groups": len({pair.group for pair in data.train}),
            "groups_held_out": sorted({pair.group for pair in data.validation}),
            "seed": settings.seed,
        }
    )
    return network


def _take_weights(network: Network, folder: Path) -> None:
    """Start from the weights of another training, and remember what that was."""
    given = Network.load(folder)
    if given.config.unet != network.config.unet:
        raise CarmaskError(
            f"{folder}: holds the network '{given.config.name}', and '{network.config.name}' cannot start from its "
            "weights; name its own --preset, or other weights"
        )
    network.load_state_dict(given.state_dict())
    network.note_training({"started_from": given.config.training})


def _introduce(ready: Ready, run: RunFolder, team: Team, reporter: Reporter) -> None:
    """Say what will be done, before it is."""
    settings, data, state = ready.settings, ready.data, ready.state
    groups, held_groups = (len({pair.group for pair in side}) for side in (data.train, data.validation))
    summary = state.network.summary()
    channels, height, width = summary.input_CHW
    steps = epoch_steps(settings, len(data.train))
    reporter.say(f"run       {run.path}")
    reporter.say(
        f"photos    {len(data.train)} of {groups} groups to learn from, {len(data.validation)} of {held_groups} "
        f"held out; cache {'written' if data.cache.fresh else 'read'}"
    )
    reporter.say(
        f"network   {settings.preset}, {summary.parameters / 1e6:.2f} M parameters, "
        f"{summary.multiply_adds / 1e9:.1f} GMAC, input {channels} x {height} x {width}"
    )
    processes = f", {team.count} processes" if team.count > 1 else ""
    reporter.say(f"device    {ready.hardware.describe()}{processes}")
    reporter.say(
        f"training  {settings.epochs} epochs of {steps} steps of {settings.batch_size} photos, "
        f"{settings.optimiser.name} {settings.optimiser.lr:g} {settings.schedule.name}, {settings.loss.name}"
    )
