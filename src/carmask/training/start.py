"""From settings to a run: find the photos, split them, fill the cache, build the network, train."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from carmask.data.cache import Cache, open_cache
from carmask.data.pairs import Dataset, describe_odd, describe_rules, find_pairs
from carmask.data.split import Split, make_split
from carmask.errors import CarmaskError
from carmask.models.network import Network, NetworkConfig
from carmask.progress import progress_bar
from carmask.runtime.hardware import Hardware, set_up
from carmask.training.batches import seed_step
from carmask.training.loop import TrainingData, epoch_steps, fit
from carmask.training.memory import find_batch_size, keep_freed_memory
from carmask.training.reporter import RunReporter
from carmask.training.run import RunFolder
from carmask.training.settings import TrainSettings
from carmask.training.state import TrainingState, start_state

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
class Outcome:
    """A run's folder, and whether the run reached its end or was stopped in order."""

    run: RunFolder
    finished: bool


def train(settings: TrainSettings, console: Console | None = None) -> Outcome:
    """Train a network from the beginning. The run's folder says all about it.

    Raises:
        CarmaskError: data, split or settings that cannot be used.

    """
    console = console or Console()
    settings = settings.with_absolute_paths()
    run = RunFolder.new(settings)
    hardware = set_up(settings.hardware)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    split = _load_split(settings.dataset.split, dataset) if settings.dataset.split else None
    materials = _prepare(settings, hardware, dataset, console)
    split = split or _make_split(settings, materials)
    data = _select(split, materials)
    state = _start(settings, data, materials)
    if settings.batch_size is None:
        canvas_CHW = (materials.cache.images_NHWC.shape[3], *materials.cache.images_NHWC.shape[1:3])
        found = find_batch_size(state.network, materials.hardware, canvas_CHW, len(data.train))
        # Written into the run's settings: free memory may be another when the run is resumed.
        settings = settings.model_copy(update={"batch_size": found})
    run.create(settings)
    split.save(run.split)
    run.write_left_out(materials.left_out())
    # So that a run that dies in its first epoch can be resumed too.
    state.save(run)
    return _run(state, settings, data, materials.hardware, run, console)


def resume(folder: Path, console: Console | None = None) -> Outcome:
    """Go on with a run that was stopped, as if it had not been.

    Raises:
        CarmaskError: the folder is no run, or its data or checkpoint cannot be used.

    """
    console = console or Console()
    run = RunFolder.existing(folder)
    settings = TrainSettings.from_yaml(run.config)
    hardware = set_up(settings.hardware)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    split = _load_split(run.split, dataset)
    materials = _prepare(settings, hardware, dataset, console)
    data = _select(split, materials)
    state = _start(settings, data, materials)
    state.load(run, materials.hardware.device)
    run.note_resumption()
    return _run(state, settings, data, materials.hardware, run, console)


def _run(
    state: TrainingState,
    settings: TrainSettings,
    data: TrainingData,
    hardware: Hardware,
    run: RunFolder,
    console: Console,
) -> Outcome:
    ids = [pair.id for pair in data.validation]
    reporter = RunReporter(run, console, settings.epochs, data.cache, ids)
    _introduce(settings, data, state, hardware, run, reporter)
    finished = fit(state, settings, data, hardware, run, reporter)
    if finished:
        reporter.say(f"best Dice {state.best_dice:.5f} in epoch {state.best_epoch}: {run.weights('best')}")
    else:
        reporter.say(f"stopped after step {state.step}; go on with `carmask train --resume {run.path}`")
    return Outcome(run, finished)


def _prepare(settings: TrainSettings, hardware: Hardware, dataset: Dataset, console: Console) -> _Materials:
    """Cache every pair; say how masks were read and which pairs cannot be used."""
    if hardware.device.type == "cpu":
        keep_freed_memory()
    with progress_bar(console, "decoding photos") as advance:
        cache = open_cache(dataset.pairs, settings.cache_recipe(), settings.dataset.cache, progress=advance)
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


def _select(split: Split, materials: _Materials) -> TrainingData:
    """The usable pairs of both sides."""
    cache = materials.cache
    train, validation = (
        [pair for pair in side if pair.id in cache.row_of] for side in split.select(materials.dataset.pairs)
    )
    if not train or not validation:
        raise CarmaskError("one side of the split has no usable photo; make another with `carmask split`")
    return TrainingData(cache, train, validation)


def _load_split(path: Path, dataset: Dataset) -> Split:
    """A split made before, held against the photos before any of them is decoded."""
    split = Split.load(path)
    split.select(dataset.pairs)
    return split


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


def _start(settings: TrainSettings, data: TrainingData, materials: _Materials) -> TrainingState:
    # The cache's name is a digest of the photos and of how they were fitted.
    return start_state(settings, _new_network(settings, data), materials.hardware, materials.cache.folder.name)


def _new_network(settings: TrainSettings, data: TrainingData) -> Network:
    seed_step(settings.seed, INITIAL_WEIGHTS_STEP)
    config = NetworkConfig.from_preset(settings.preset)
    network = Network(config.model_copy(update={"geometry": settings.geometry()}))
    if settings.init is not None:
        _take_weights(network, settings.init)
    network.note_training(
        {
            "data": settings.data.resolve().name,
            "photos": len(data.train),
            "groups": len({pair.group for pair in data.train}),
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


def _introduce(
    settings: TrainSettings,
    data: TrainingData,
    state: TrainingState,
    hardware: Hardware,
    run: RunFolder,
    reporter: RunReporter,
) -> None:
    """Say what will be done, before it is."""
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
    reporter.say(f"device    {hardware.describe()}")
    reporter.say(
        f"training  {settings.epochs} epochs of {steps} steps of {settings.batch_size} photos, "
        f"{settings.optimiser.name} {settings.optimiser.lr:g} {settings.schedule.name}, {settings.loss.name}"
    )
