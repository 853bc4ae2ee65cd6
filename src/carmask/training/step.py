"""One step: forward, loss and backward, in parts where memory wants it, and what happens when one of them fails."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carmask.data.augment import Augmenter
from carmask.errors import CarmaskError, first_line
from carmask.runtime.hardware import Hardware
from carmask.training.batches import Batch
from carmask.training.losses import make_loss
from carmask.training.memory import give_back_freed_memory, is_out_of_memory
from carmask.training.reporter import Reporter
from carmask.training.settings import TrainSettings
from carmask.training.state import TrainingState
from carmask.training.team import Team, told


class TrainingError(CarmaskError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Outcome:
    """Of one step: the loss of each of this process's images, the mean over all, whether any process wants to stop."""

    losses_B: Tensor
    loss: float
    wants_stop: bool


class Stepper:
    """Changes the weights by one batch at a time; all that it remembers is in the state."""

    def __init__(
        self, state: TrainingState, settings: TrainSettings, hardware: Hardware, team: Team, reporter: Reporter
    ) -> None:
        self._state = state
        self._hardware = hardware
        self._team = team
        self._reporter = reporter
        self._loss_of = make_loss(settings.loss)
        self._augment = Augmenter(settings.augment, channels=state.network.card.channels)
        self._clip_norm = settings.optimizer.clip_norm or math.inf
        self._parameters = [parameter for parameter in state.network.parameters() if parameter.requires_grad]
        self._statistics = _Statistics(state.network)
        self._network: nn.Module = state.network
        if settings.hardware.compile:
            self._network = torch.compile(state.network)  # type: ignore[assignment]

    def __call__(self, batch: Batch, *, vote: Callable[[], bool]) -> Outcome:
        """Learn from one batch, of which this process has its share.

        Args:
            batch: Images (float32 B x C x H x W, 0..1) and soft masks (float32 B x 1 x H x W, 0..1).
            vote: Whether this process wants to stop after this step; asked when its gradients are ready.

        Raises:
            TrainingError: the loss is no longer a number, or memory does not suffice and parts are of no help.
            TeamError: another process has ended.

        """
        with _memory_explained(self._state):
            images_BCHW, soft_B1HW = self._augment(*batch)
        self._statistics.keep()
        with told():
            losses_B = self._gradients(images_BCHW, soft_B1HW)
            while losses_B is None:
                # Not before: while the error is handled, it holds all that the failed pass had computed.
                give_back_freed_memory(self._hardware.device)
                losses_B = self._gradients(images_BCHW, soft_B1HW)
            loss, votes = self._team.average(self._parameters, (float(losses_B.mean()), float(vote())))
        with _memory_explained(self._state):
            self._change_weights()
        return Outcome(losses_B, loss, votes > 0)

    def _gradients(self, images_BCHW: Tensor, soft_B1HW: Tensor) -> Tensor | None:
        """Gradients of the mean loss; nothing where memory did not suffice and smaller parts are to be tried."""
        state = self._state
        state.optimizer.zero_grad(set_to_none=True)
        losses = []
        try:
            for images, soft in zip(images_BCHW.chunk(state.parts), soft_B1HW.chunk(state.parts), strict=True):
                with self._hardware.autocast():
                    logits_B1HW = self._network(images.contiguous(memory_format=torch.channels_last))
                # The loss sums over many pixels, which 16 bits cannot.
                loss_B = self._loss_of(logits_B1HW.float(), soft)
                state.scaler.scale(loss_B.sum() / len(images_BCHW)).backward()  # type: ignore[no-untyped-call]
                losses.append(loss_B.detach())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._divide(len(images_BCHW), error)
            # Else the parts that went through would count twice.
            self._statistics.put_back()
            return None
        return torch.cat(losses)

    def _divide(self, photos: int, error: RuntimeError) -> None:
        """Let the batch pass in twice as many parts from now on."""
        state = self._state
        if self._team.count > 1:
            raise TrainingError(
                f"out of memory at step {state.step}, which one of several processes cannot mend alone; go on with "
                f"smaller parts, --accumulate {2 * state.parts}, or a smaller --batch-size, in a new run"
            ) from error
        if state.parts >= photos:
            raise TrainingError(
                f"out of memory at step {state.step} with a single photo; use a smaller --input.height-px and "
                "--input.width-px, or a smaller --preset"
            ) from error
        state.parts = min(2 * state.parts, photos)
        self._reporter.say(
            f"out of memory at step {state.step}: batches of {photos} photos go through in {state.parts} parts from "
            "here on, which takes longer and lets BatchNorm see fewer photos at once"
        )

    def _change_weights(self) -> None:
        """Step the optimizer. A step whose gradient is not a number is left out; two in a row are the end."""
        state = self._state
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if bool(norm.isfinite()):
            state.scaler.step(state.optimizer)
            state.lost_steps = 0
            if state.averaged is not None:
                state.averaged.update(state.network)
            state.scaler.update()
            return
        self._statistics.put_back()
        # Float16 overflows now and then, and goes on with a smaller scale.
        if not state.scaler.is_enabled() or state.scaler.get_scale() < 1:
            state.lost_steps += 1
            if state.lost_steps > 1:
                kept = f"; the weights of epoch {len(state.history)} are kept" if state.history else ""
                raise TrainingError(
                    f"the gradient is not a number at steps {state.step - 1} and {state.step}: training has diverged. "
                    "Start again with a lower --optimizer.lr, with --optimizer.clip-norm 1, or with "
                    f"--hardware.precision float32{kept}"
                )
            self._reporter.say(f"the gradient is not a number at step {state.step}: this step is left out")
        state.scaler.update()


class _Statistics:
    """BatchNorm's running statistics as they were before a step, which changes them in its forward pass already."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._before = [buffer.clone() for buffer in network.buffers()]

    def keep(self) -> None:
        """Remember them as they are."""
        _copy(self._before, list(self._network.buffers()))

    def put_back(self) -> None:
        """Let them be again as they were remembered."""
        _copy(list(self._network.buffers()), self._before)


@torch.no_grad()
def _copy(into: list[Tensor], source: list[Tensor]) -> None:
    # Together only with those of their kind: then it is one call to a GPU for all of them.
    for dtype in {tensor.dtype for tensor in into}:
        places = [place for place, tensor in enumerate(into) if tensor.dtype == dtype]
        torch._foreach_copy_([into[place] for place in places], [source[place] for place in places])


@contextmanager
def _memory_explained(state: TrainingState) -> Iterator[None]:
    """Say in words that memory did not suffice for what does not go through in parts.

    Raises:
        TrainingError: it did not.

    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory at step {state.step}, where smaller parts are of no help ({first_line(error)}); use a "
            "smaller --batch-size or --preset in a new run, or, where others took the memory, go on with "
            "`carmask train --resume` when they are done"
        ) from error
