"""The learning rate as a function of the step alone, so that a resumed run needs no schedule to be restored."""

import math

from carmask.training.settings import ScheduleSettings

# One-cycle (Smith and Topin, "Super-Convergence", 2018, in the cosine shape of fast.ai): start and end, of the peak.
START_SHARE = 1 / 25
END_SHARE = 1e-4


def learning_rate(step: int, total_steps: int, peak: float, settings: ScheduleSettings) -> float:
    """Learning rate of step `step` (0 to `total_steps` - 1)."""
    if settings.name == "constant":
        return peak
    start, end = (START_SHARE, END_SHARE) if settings.name == "one-cycle" else (0.0, 0.0)
    warmup_steps = settings.warmup * total_steps
    if step < warmup_steps:
        done = (step + 1) / (warmup_steps + 1)
        share = _cosine(start, 1, done) if settings.name == "one-cycle" else done
    else:
        share = _cosine(1, end, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return peak * share


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1))) / 2
