"""From settings to a run: find the photos, split them, fill the cache, build the network, train."""

from pathlib import Path

from rich.console import Console

from carmask.data.cache import Cache, CacheRecipe, open_cache
from carmask.data.pairs import Dataset, Pair, find_pairs
from carmask.data.split import Split, make_split
from carmask.errors import CarmaskError
from carmask.models.network import Network, NetworkConfig
from carmask.models.presets import PRESETS
from carmask.progress import progress_bar
from carmask.runtime.hardware import Hardware, set_up
from carmask.training.batches import seed_step
from carmask.training.loop import TrainingData, TrainingState, epoch_steps, fit, start_state
from carmask.training.memory import find_batch_size, keep_freed_memory
from carmask.training.progress import RunReporter
from carmask.training.run import RunFolder
from carmask.training.settings import TrainSettings

# A stream of its own for the first weights, apart from those of the steps.
INITIAL_WEIGHTS_STEP = 2**32 - 1
SHOWN_FAILURES = 20


def train(settings: TrainSettings, console: Console | None = None) -> RunFolder:
    """Train a network from the beginning. The run's folder says all about it.

    Raises:
        CarmaskError: data, split or settings that cannot be used.

    """
    console = console or Console()
    hardware = set_up(settings.hardware)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    cache = _open_cache(settings, dataset, console)
    split = _split(settings, dataset, cache)
    run = RunFolder.create(settings)
    split.save(run.split)
    return _train(settings, dataset, cache, split, hardware, run, console, resume=False)


def resume(folder: Path, console: Console | None = None) -> RunFolder:
    """Go on with a run that was stopped, as if it had not been.

    Raises:
        CarmaskError: the folder is no run, or its data or checkpoint cannot be used.

    """
    console = console or Console()
    run = RunFolder.existing(folder)
    settings = TrainSettings.from_yaml(run.config)
    hardware = set_up(settings.hardware)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    cache = _open_cache(settings, dataset, console)
    return _train(settings, dataset, cache, Split.load(run.split), hardware, run, console, resume=True)


def _train(
    settings: TrainSettings,
    dataset: Dataset,
    cache: Cache,
    split: Split,
    hardware: Hardware,
    run: RunFolder,
    console: Console,
    *,
    resume: bool,
) -> RunFolder:
    learnt, held_out = split.select(dataset.pairs)
    data = TrainingData(cache, _usable(learnt, cache), _usable(held_out, cache))
    if hardware.device.type == "cpu":
        keep_freed_memory()
    state = start_state(settings, _new_network(settings, data), hardware)
    canvas_CHW = (cache.images_NHWC.shape[3], *cache.images_NHWC.shape[1:3])
    batch_size = settings.batch_size or find_batch_size(state.network, hardware, canvas_CHW, len(data.train))
    if resume:
        state.load(run, hardware.device)
    ids = [pair.id for pair in data.validation]
    reporter = RunReporter(run, console, settings.epochs, cache, ids, hardware)
    _introduce(settings, data, state, hardware, run, reporter, batch_size)
    finished = fit(state, settings, data, hardware, run, reporter, batch_size)
    if not finished:
        reporter.say(f"stopped after step {state.step}; go on with `carmask train --resume {run.path}`")
    elif state.history:
        reporter.say(f"best Dice {state.best_dice:.5f} in epoch {state.best_epoch}: {run.weights('best')}")
    return run


def _open_cache(settings: TrainSettings, dataset: Dataset, console: Console) -> Cache:
    """Cache every pair, and say which cannot be used."""
    preset = PRESETS[settings.preset].unet
    recipe = CacheRecipe(
        geometry=settings.geometry(),
        channels=preset.in_channels,
        stride_px=preset.stride_px,
        foreground=settings.dataset.foreground,
    )
    with progress_bar(console, "decoding photos") as advance:
        cache = open_cache(dataset.pairs, recipe, settings.dataset.cache, progress=advance)
    causes = [f"{problem.subject}: {problem.kind}, {problem.detail}" for problem in dataset.problems]
    causes += [str(cause) for cause in cache.failures.values()]
    for cause in causes[:SHOWN_FAILURES]:
        console.print(f"left out: {cause}", style="yellow", highlight=False, markup=False)
    if len(causes) > SHOWN_FAILURES:
        console.print(
            f"... and {len(causes) - SHOWN_FAILURES} more; `carmask check {settings.data}` lists all", style="yellow"
        )
    if not cache.row_of:
        raise CarmaskError(f"{settings.data}: none of its {len(dataset.pairs)} pairs can be used; see `carmask check`")
    return cache


def _split(settings: TrainSettings, dataset: Dataset, cache: Cache) -> Split:
    if settings.dataset.split is not None:
        return Split.load(settings.dataset.split)
    group_of = {pair.id: pair.group for pair in dataset.pairs if pair.id in cache.row_of}
    options = settings.dataset
    return make_split(
        group_of,
        cache.area_of,
        folds=options.folds,
        fold=options.fold,
        fraction=options.fraction,
        seed=options.split_seed,
    )


def _usable(pairs: list[Pair], cache: Cache) -> list[Pair]:
    return [pair for pair in pairs if pair.id in cache.row_of]


def _new_network(settings: TrainSettings, data: TrainingData) -> Network:
    seed_step(settings.seed, INITIAL_WEIGHTS_STEP)
    config = NetworkConfig.from_preset(settings.preset)
    network = Network(config.model_copy(update={"geometry": settings.geometry()}))
    network.note_training(
        {
            "data": settings.data.resolve().name,
            "photos": len(data.train),
            "groups": len({pair.group for pair in data.train}),
            "seed": settings.seed,
        }
    )
    return network


def _introduce(
    settings: TrainSettings,
    data: TrainingData,
    state: TrainingState,
    hardware: Hardware,
    run: RunFolder,
    reporter: RunReporter,
    batch_size: int,
) -> None:
    """Say what will be done, before it is."""
    groups, held_groups = (len({pair.group for pair in side}) for side in (data.train, data.validation))
    summary = state.network.summary()
    channels, height, width = summary.input_CHW
    steps = epoch_steps(settings, len(data.train), batch_size)
    found = "" if settings.batch_size else " (found)"
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
        f"training  {settings.epochs} epochs of {steps} steps of {batch_size} photos{found}, {settings.optimiser.name} "
        f"{settings.optimiser.lr:g} {settings.schedule.name}, {settings.loss.name}"
    )
