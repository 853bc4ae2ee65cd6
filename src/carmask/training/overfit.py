"""Self-test before a long training: a network that cannot overfit one batch will not learn anything."""

import torch
from rich.console import Console

from carmask.training.config import TrainSettings
from carmask.training.data_loading import Batch, iterate_batches
from carmask.training.distributed import DistributedContext
from carmask.training.loggers import RunLogger
from carmask.training.memory import keep_freed_memory
from carmask.training.setup import set_up_training
from carmask.training.stopping import TrainingError
from carmask.training.train import train_step

STEPS = 400
SHOWN_STEPS = 20
ENOUGH_DICE = 0.98
LARGEST_BATCH = 8


def overfit_batch(settings: TrainSettings, console: Console) -> None:
    """Train on one batch only, without augmentation, at a constant learning rate. Writes nothing but the cache.

    Raises:
        TrainingError: the batch was not learned.
        CarmaskError: data, split or settings cannot be used.
    """
    batch_size = min(settings.batch_size or LARGEST_BATCH, LARGEST_BATCH)
    plain = settings.model_copy(
        update={"batch_size": batch_size, "accumulate": 1, "augment": settings.augment.off(), "ema": 0.0}
    )
    setup, state = set_up_training(plain, DistributedContext(), RunLogger(console))
    ((_, batch),) = iterate_batches(setup.data, range(1), batch_size, plain.seed, setup.hardware.device)
    dice = 0.0
    with keep_freed_memory(setup.hardware.device):
        for step in range(1, STEPS + 1):
            state.network.train()
            result = train_step(setup, state, batch.clone())
            state.step = step
            if step % SHOWN_STEPS == 0:
                dice = _dice(state.network, batch)
                console.print(f"step {step:>3}/{STEPS}  loss {result.loss:.4f}  Dice on the batch {dice:.4f}")
                if dice >= ENOUGH_DICE:
                    console.print(f"learned the batch in {step} steps: network, loss and data work together")
                    return
    raise TrainingError(
        f"one batch was not learned in {STEPS} steps (Dice {dice:.3f}): look at the masks with `carmask check "
        f"--sheet`, and try another --optimizer.lr (it is {settings.optimizer.lr:g})"
    )


@torch.no_grad()
def _dice(network: torch.nn.Module, batch: Batch) -> float:
    """Dice at network size, with BatchNorm in training mode: its running statistics have hardly moved.

    That of an empty mask that is found empty is 1.
    """
    found, true = network(batch.images_BCHW) >= 0, batch.soft_B1HW >= 0.5
    if batch.known_B1HW is not None:
        found, true = found & (batch.known_B1HW > 0), true & (batch.known_B1HW > 0)
    overlap_B, total_B = (found & true).sum((1, 2, 3)), found.sum((1, 2, 3)) + true.sum((1, 2, 3))
    return float((2 * overlap_B / total_B).nan_to_num(1).mean())
