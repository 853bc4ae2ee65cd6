"""What a run needs before its first step: photos, network, optimizer, and the folder to record it in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from carmask.data.augment import Augmenter
from carmask.data.split import Split
from carmask.errors import CarmaskError, explain
from carmask.models.card import ModelCard
from carmask.models.efficientnet import load_imagenet
from carmask.models.network import Network
from carmask.models.onnx_weights import fit_batch_norm
from carmask.runtime.hardware import Hardware, set_up
from carmask.runtime.locate import locate
from carmask.runtime.torch_engine import to_input
from carmask.training.checkpoint import TrainingState, load_checkpoint
from carmask.training.config import IMAGENET, SettingsError, TrainSettings
from carmask.training.data_loading import epoch_steps, pair_weights, pass_length, seed_step
from carmask.training.datasets import TrainingData, load_data
from carmask.training.distributed import DistributedContext, DistributedError
from carmask.training.loggers import RunLogger
from carmask.training.losses import Loss, make_loss
from carmask.training.memory import find_batch_size
from carmask.training.optimizer import make_averaged_model, make_optimizer
from carmask.training.run_folder import RunFolder

# The initial weights are drawn as if in this step, which no run reaches.
INITIAL_WEIGHTS_STEP = 2**32 - 1
# At most this many photos give statistics to the BatchNorm of an exported network.
FIT_PHOTOS = 16


@dataclass(frozen=True)
class TrainingSetup:
    """What stays the same from step to step; what changes is in `TrainingState`."""

    settings: TrainSettings
    hardware: Hardware
    distributed: DistributedContext
    data: TrainingData
    # The network of the state, compiled if the settings say so.
    model: nn.Module
    augment: Augmenter
    loss_fn: Loss
    logger: RunLogger


def open_run(
    settings: TrainSettings | None,
    resume: Path | None,
    distributed: DistributedContext,
    logger: RunLogger,
    *,
    moved_to: Path | None = None,
    epochs: int | None = None,
) -> tuple[RunFolder, TrainSettings, Split | None, dict[str, Any] | None]:
    """Choose the folder of a new run, or read the one to resume, on rank 0: other machines need not see it.

    Returns folder and settings, and of a run to resume split and checkpoint.

    Raises:
        CarmaskError: the folder or its checkpoint cannot be used.
    """
    split, checkpoint = None, None
    if resume is not None:
        run = distributed.broadcast_object(lambda: RunFolder.existing(resume))
        settings = distributed.broadcast_object(lambda: resumed_settings(run, moved_to, epochs))
        split = distributed.broadcast_object(lambda: Split.load(run.split))
        checkpoint = distributed.broadcast_object(lambda: load_checkpoint(run.checkpoint, logger.info))
    else:
        if settings is None:
            raise CarmaskError("nothing to train: pass settings, or the folder of a run to resume")
        if settings.stages:
            raise CarmaskError("settings with stages make several runs: use carmask.training.experiments")
        # Rank 0's, because other processes may run in another working folder.
        settings = distributed.broadcast_object(settings.with_absolute_paths)
        run = distributed.broadcast_object(lambda: RunFolder.new(settings))
    distributed.batch_slice(settings.batch_size or distributed.world_size)
    for probability, sizes in settings.augment.without_effect().items() if resume is None else ():
        names = ", ".join(f"augment.{size}" for size in sizes)
        logger.info(
            f"warning   {names} {'has' if len(sizes) == 1 else 'have'} no effect while the probability "
            f"augment.{probability} is 0; add --augment.{probability} 0.5"
        )
    return run, settings, split, checkpoint


def resumed_settings(run: RunFolder, moved_to: Path | None, epochs: int | None) -> TrainSettings:
    """Return a run's settings, with what may change when it is resumed.

    Raises:
        SettingsError: it would not be the run that it had been with these settings from the beginning.
    """
    settings = TrainSettings.from_yaml(run.config)
    epochs = epochs or settings.epochs
    if epochs != settings.epochs and settings.schedule.name != "constant":
        raise SettingsError(
            f"{run.path}: was begun with {settings.epochs} epochs, on which its learning rate "
            f"({settings.schedule.name}) depends in every step, so it cannot go on to {epochs}; start another run from "
            f"its weights: --init {run.path}"
        )
    data = settings.data if moved_to is None else moved_to.absolute()
    return settings.model_copy(update={"data": data, "epochs": epochs})


def set_up_training(
    settings: TrainSettings,
    distributed: DistributedContext,
    logger: RunLogger,
    split: Split | None = None,
    is_time_over: Callable[[], bool] = lambda: False,
) -> tuple[TrainingSetup, TrainingState]:
    """Load the photos and build network and optimizer. Writes nothing but the cache.

    The settings in the result have a batch size, chosen if none was given. `split` is that of a resumed run, whose
    weights come from its checkpoint. `is_time_over` is asked while photos are decoded.

    Raises:
        CarmaskError: data, split or settings cannot be used.
        CacheUnfinished: the time was over before all photos were decoded.
    """
    hardware = set_up(settings.hardware, local_rank=distributed.local_rank, local_count=distributed.local_world_size)
    data = load_data(settings, distributed, logger.console, split=split, is_time_over=is_time_over)
    if not pass_length(pair_weights(data)):
        raise CarmaskError("the weights of the data sets are so small that no photo is shown; give larger ones")
    if settings.composite.probability and not data.cutouts:
        raise CarmaskError("composite: no photo to train on is left to cut a vehicle out of; see `carmask check`")
    network = build_network(settings, data)
    init = settings.init if split is None else None
    if init is not None:
        distributed.broadcast_object(lambda: load_initial_weights(network, init, data))
    network.to(hardware.device)
    distributed.prepare_network(network)
    digest = data.digest
    if any(other != digest for other in distributed.all_gather_object(digest)):
        raise DistributedError(
            f"the photos and masks in {settings.data} are not the same for all processes; give every machine the same "
            "files"
        )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainingState(
        network,
        make_optimizer(network, settings.optimizer),
        make_averaged_model(network, settings.ema) if settings.ema else None,
        torch.amp.GradScaler(hardware.device.type, enabled=hardware.precision == torch.float16),
        photos=digest,
        accumulate=settings.accumulate,
    )
    if settings.batch_size is None:
        settings = choose_batch_size(settings, network, data, hardware, distributed)
    model: nn.Module = torch.compile(network) if settings.hardware.compile else network  # type: ignore[assignment]
    augment = Augmenter(settings.augment, channels=network.card.channels)
    loss_fn = make_loss(settings.loss)
    return TrainingSetup(settings, hardware, distributed, data, model, augment, loss_fn, logger), state


def build_network(settings: TrainSettings, data: TrainingData) -> Network:
    """Build the network with random weights, and note in its configuration what it is trained on."""
    seed_step(settings.seed, INITIAL_WEIGHTS_STEP)
    card = ModelCard.from_preset(settings.preset)
    network = Network(card.model_copy(update={"unet": settings.unet(), "geometry": settings.geometry()}))
    network.note_training(
        {
            "data": "+".join(settings.datasets) or settings.data.resolve().name,
            "photos": len(data.train),
            "groups": len({pair.group for pair in data.train}),
            "groups_held_out": sorted({pair.group for pair in data.held_out}),
            "seed": settings.seed,
        }
    )
    return network


def load_initial_weights(network: Network, init: Path, data: TrainingData) -> None:
    """Start from the weights of another network, or the encoder from weights trained on ImageNet, and note which.

    An exported network gets its BatchNorm's statistics from some photos of `data`.

    Raises:
        CarmaskError: they cannot be read, or are those of another network.
    """
    if init == IMAGENET and not init.exists():
        encoder = network.card.unet.encoder
        if encoder == "plain":
            raise CarmaskError(
                f"--init {IMAGENET}: only EfficientNet encoders have weights trained on ImageNet, and "
                f"'{network.card.name}' has a plain one; use --preset general, or name a folder of weights"
            )
        network.note_training({"encoder": load_imagenet(network.unet.encoders, encoder)})
        return
    place = init if init.exists() else locate(str(init), "torch")
    given = Network.load(place)
    if given.card.unet != network.card.unet:
        raise CarmaskError(
            f"{init}: contains the network '{given.card.name}', and '{network.card.name}' cannot start from its "
            "weights; use the same --preset, or other weights"
        )
    network.load_state_dict(given.state_dict())
    if place.is_file():
        some = data.train[:: math.ceil(len(data.train) / FIT_PHOTOS)]
        images_NHWC = (np.stack([data.read(pair.id).image_HWC]) for pair in some)
        fit_batch_norm(network.eval(), (to_input(image_NHWC, torch.device("cpu")) for image_NHWC in images_NHWC))
    # Of the held-out photos of an earlier training the names are many, and say nothing of this one.
    earlier = {name: note for name, note in given.card.training.items() if name != "groups_held_out"}
    network.note_training({"started_from": earlier})


def choose_batch_size(
    settings: TrainSettings, network: Network, data: TrainingData, hardware: Hardware, distributed: DistributedContext
) -> TrainSettings:
    """Choose the batch size that fits into free memory. It is saved, because there may be less memory on resuming.

    Raises:
        SettingsError: it is not possible together with the other settings.
    """
    height, width, channels = data.read(data.train[0].id).image_HWC.shape
    photos = len(data.train) // distributed.world_size
    per_process = find_batch_size(network, hardware, (channels, height, width), photos)
    # A multiple of the number of processes and of parts.
    unit = math.lcm(distributed.world_size, settings.accumulate)
    wanted = distributed.broadcast_object(lambda: per_process) * distributed.world_size
    size = -(-wanted // unit) * unit
    try:
        # Validated, because a run must not start with settings that it could not be resumed with.
        return TrainSettings.model_validate({**settings.model_dump(exclude={"config"}), "batch_size": size})
    except ValidationError as error:
        raise SettingsError(f"the batch size that fits here: {explain(error, TrainSettings)}") from error


def create_run_folder(run: RunFolder, setup: TrainingSetup, state: TrainingState) -> None:
    """Create the folder, on rank 0, with a first checkpoint to resume from."""
    if setup.distributed.is_main:
        with run.creating(setup.settings) as partial:
            setup.data.split.save(partial.split)
            partial.write_left_out(setup.data.skipped)
            state.save(partial.checkpoint, setup.distributed)


def restore_state(run: RunFolder, setup: TrainingSetup, state: TrainingState, checkpoint: dict[str, Any]) -> None:
    """Restore the state from a checkpoint, and the best weights to those that it refers to.

    Raises:
        CheckpointError: it belongs to other photos or settings.
    """
    state.load_state_dict(checkpoint, run.path)
    if not setup.distributed.broadcast_object(lambda: restore_best_weights(run, setup, state)):
        # On all ranks: the weights of the next validation become the best.
        state.best_dice = -math.inf
    if setup.distributed.is_main:
        run.record_resumption(setup.settings)


def restore_best_weights(run: RunFolder, setup: TrainingSetup, state: TrainingState) -> bool:
    """Whether the best weights are there, or could be restored."""
    epoch = state.best_epoch
    if not epoch or run.restore_best(epoch):
        return True
    if state.history[-1].epoch == epoch and state.history[-1].step == state.step:
        # The checkpoint contains them.
        run.save_weights(state.evaluated_network, "best")
        return True
    setup.logger.info(
        f"warning   {run.weights('best')}: the best weights, of epoch {epoch}, are missing or damaged, or newer than "
        "the checkpoint; those of the next validation replace them"
    )
    return False


def print_summary(run: RunFolder, setup: TrainingSetup, state: TrainingState) -> None:
    """Print what will be trained on what."""
    settings, data, log = setup.settings, setup.data, setup.logger.info
    groups, held_out_groups = (len({pair.group for pair in side}) for side in (data.train, data.held_out))
    summary = state.network.summary()
    channels, height, width = summary.input_CHW
    world_size = setup.distributed.world_size
    log(f"run       {run.path}")
    log(
        f"photos    {len(data.train)} of {groups} groups to train on, {len(data.held_out)} of {held_out_groups} held "
        f"out{'' if data.held_out else ', so that Dice is of photos that it learns from'}; cache "
        f"{'written' if data.is_fresh else 'read'}"
    )
    log(
        f"network   {settings.preset}, {summary.parameters / 1e6:.2f} M parameters, "
        f"{summary.multiply_adds / 1e9:.1f} GMAC, input {channels} x {height} x {width}"
    )
    log(f"device    {setup.hardware.describe()}{f', {world_size} processes' if world_size > 1 else ''}")
    log(
        f"training  {settings.epochs} epochs of {epoch_steps(settings, data)} steps of "
        f"{settings.batch_size} photos, {settings.optimizer.name} {settings.optimizer.lr:g} {settings.schedule.name}, "
        f"{settings.loss.name}"
    )
