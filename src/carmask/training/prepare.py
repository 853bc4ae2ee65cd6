"""What a run needs before its first step: the photos found, cached and divided, the network built."""

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
from carmask.errors import CarmaskError, explain
from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.progress import progress_bar
from carmask.runtime.hardware import Hardware, set_up
from carmask.training.batches import seed_step
from carmask.training.loop import TrainingData
from carmask.training.memory import find_batch_size, keep_freed_memory
from carmask.training.reporter import say
from carmask.training.settings import SettingsError, TrainSettings
from carmask.training.state import TrainingState, start_state
from carmask.training.team import Team

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
        """What cannot be learned from, each with the cause."""
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


def prepare(
    settings: TrainSettings,
    team: Team,
    console: Console,
    *,
    split: Split | None = None,
    until_s: float | None = None,
    is_run: bool = True,
) -> Ready:
    """Find, cache and divide the photos, and build the network; nothing is written but the cache.

    `split` is that of a run which is gone on with: its network's weights come from elsewhere. `is_run`: there is, or
    will be, a run's folder that lists the photos which are left out.

    Raises:
        CarmaskError: data, split or settings that cannot be used.
        CacheUnfinished: `time.monotonic()` was `until_s` before all photos were decoded, on one of the machines.

    """
    hardware = set_up(settings.hardware, local_rank=team.local_rank, local_count=team.local_count)
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    is_new = split is None
    if split is None and settings.dataset.split is not None:
        split = team.from_first(partial(Split.load, settings.dataset.split))
    if split is not None:
        # Held against the photos before any of them is decoded.
        split.select(dataset.pairs)
    materials = _decode(settings, hardware, dataset, team, console, until_s)
    _say_what_was_found(materials, settings.data, console, is_run=is_run)
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


def _decode(
    settings: TrainSettings,
    hardware: Hardware,
    dataset: Dataset,
    team: Team,
    console: Console,
    until_s: float | None,
) -> _Materials:
    """Cache every pair."""
    if hardware.device.type == "cpu":
        keep_freed_memory()

    def fill() -> Cache:
        with progress_bar(console, "decoding photos") as advance:
            return open_cache(
                dataset.pairs,
                settings.cache_key(),
                settings.dataset.cache,
                progress=advance,
                wants_stop=lambda: until_s is not None and time.monotonic() >= until_s,
            )

    return _Materials(hardware, dataset, _filled(fill, team))


def _say_what_was_found(materials: _Materials, data: Path, console: Console, *, is_run: bool) -> None:
    """Say how masks were read and which pairs cannot be used.

    Raises:
        CarmaskError: none can.

    """
    cache = materials.cache
    left_out = materials.left_out()
    for name, cause in left_out[:SHOWN_LEFT_OUT]:
        say(console, f"left out  {name}: {cause}", style="yellow")
    if len(left_out) > SHOWN_LEFT_OUT:
        where = "all in the run's left_out.csv" if is_run else "all named by `carmask check`"
        say(console, f"left out  {len(left_out) - SHOWN_LEFT_OUT} more, {where}", style="yellow")
    for rule in describe_rules(cache.rules):
        say(console, f"masks     {rule}")
    odd = describe_odd(cache.odd)
    if odd is not None:
        say(console, f"masks     {odd}", style="yellow")
    if not cache.row_of:
        pairs = materials.dataset.pairs
        raise CarmaskError(f"{data}: none of its {len(pairs)} pairs can be used; see `carmask check`")


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
    told = [one for one in team.gather(unfinished, patiently=True) if one is not None]
    if told:
        raise CacheUnfinished(told[0])
    cache = cache or fill()
    # Who opens it after the first checks all of it, too.
    team.gather(None, patiently=True)
    return cache


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
    config = ModelCard.from_preset(settings.preset)
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
    if given.card.unet != network.card.unet:
        raise CarmaskError(
            f"{folder}: holds the network '{given.card.name}', and '{network.card.name}' cannot start from its "
            "weights; name its own --preset, or other weights"
        )
    network.load_state_dict(given.state_dict())
    network.note_training({"started_from": given.card.training})


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
