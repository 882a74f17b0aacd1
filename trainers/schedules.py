"""Learning-rate curves by name, each with a linear warm-up (diffusers' schedules)."""

from diffusers.optimization import get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainers.config import ScheduleConfig, TrainConfig

SCHEDULES: dict[str, str] = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
}


def total_steps(config: TrainConfig) -> int:
    """Optimizer steps of a run: as set, or as many as its picture views fill."""
    return config.total_steps


def too_far(done: int, steps: int) -> tuple[str, str]:
    """What is said of a run that has done more steps than its settings ask for, and what helps."""
    return f"This run has already done {done} steps, more than its {steps}.", "Start a new run."


def build_schedule(config: ScheduleConfig, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The curve over `steps` optimizer steps; warm-up is `config.warmup` of them."""
    cycles = 0.5 if config.type == "cosine" else config.cycles  # half a wave ends at zero
    return get_scheduler(
        SCHEDULES[config.type],
        optimizer,
        num_warmup_steps=round(config.warmup * steps),
        num_training_steps=steps,
        num_cycles=cycles,
        power=config.power,
    )
