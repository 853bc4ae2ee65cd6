"""A self-test before a long training: a network that cannot learn one batch by heart will not learn anything."""

from dataclasses import dataclass

import torch
from rich.console import Console

from carmask.training.batches import BatchReader, batch_indices
from carmask.training.prepare import prepare
from carmask.training.reporter import SayingReporter
from carmask.training.settings import TrainSettings
from carmask.training.step import Stepper
from carmask.training.team import Team

STEPS = 400
SHOWN_STEPS = 20
ENOUGH_DICE = 0.98
LARGEST_BATCH = 8


@dataclass(frozen=True)
class OverfitOutcome:
    """Dice (0..1) on the batch itself after the last step, and whether that is enough."""

    dice: float
    steps: int

    @property
    def passed(self) -> bool:
        """Whether the batch was learned."""
        return self.dice >= ENOUGH_DICE


def overfit_batch(settings: TrainSettings, console: Console | None = None) -> OverfitOutcome:
    """Learn one batch by heart, nothing varied, at a constant rate. Writes nothing but the cache.

    Raises:
        CarmaskError: data, split or settings that cannot be used.

    """
    console = console or Console()
    plain = settings.model_copy(
        update={
            "batch_size": min(settings.batch_size or LARGEST_BATCH, LARGEST_BATCH),
            "accumulate": 1,
            "augment": settings.augment.off(),
            "ema": 0.0,
        }
    )
    ready = prepare(plain, Team(), console, is_run=False)
    assert plain.batch_size is not None
    for group in ready.state.optimizer.param_groups:
        group["lr"] = plain.optimizer.lr
    stepper = Stepper(ready.state, plain, ready.hardware, Team(), SayingReporter(console))
    reader = BatchReader(ready.data.cache, tuple(pair.id for pair in ready.data.train), ready.hardware.device)
    indices_B = batch_indices(0, plain.batch_size, len(ready.data.train), plain.seed)
    dice = 0.0
    for step, (images_BCHW, soft_B1HW) in reader.steps(range(STEPS), lambda _: indices_B):
        ready.state.network.train()
        outcome = stepper((images_BCHW.clone(), soft_B1HW.clone()), vote=lambda: False)
        ready.state.step = step + 1
        if (step + 1) % SHOWN_STEPS == 0:
            dice = _dice(ready.state.network, images_BCHW, soft_B1HW)
            console.print(f"step {step + 1:>3}/{STEPS}  loss {outcome.loss:.4f}  Dice on the batch {dice:.4f}")
            if dice >= ENOUGH_DICE:
                break
    return OverfitOutcome(dice, ready.state.step)


@torch.no_grad()
def _dice(network: torch.nn.Module, images_BCHW: torch.Tensor, soft_B1HW: torch.Tensor) -> float:
    """Of the batch at the network's size, with BatchNorm as in training, which one batch has hardly moved."""
    found, true = network(images_BCHW) >= 0, soft_B1HW >= 0.5
    overlap_B, total_B = (found & true).sum((1, 2, 3)), found.sum((1, 2, 3)) + true.sum((1, 2, 3))
    return float((2 * overlap_B / total_B.clamp(min=1)).mean())
