"""What a run gives up for memory: as the settings say, or as little as its budget asks for."""

from dataclasses import dataclass

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from trainers import devices
from trainers.config import AdapterConfig, TrainConfig
from trainers.events import Adjusted
from trainers.families.base import Components, Family
from trainers.memory.device import Plan
from trainers.memory.fit import Fitted, fit
from trainers.memory.hollow import HollowStep, emptied
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.units import blocks

GB = 2**30
# GB beside what is counted: on a CPU torch, diffusers and their libraries (0.48 measured on Linux), on a GPU the
# workspaces of its libraries (not measured).
BESIDE = {"cpu": 0.5}
BESIDE_GPU = 0.3
PER_PIXEL = 2**20  # bytes of activations per latent pixel at 2 bytes a number: SDXL's and SD 1.5's take a third


@dataclass(frozen=True)
class Room:
    """GB of 2^30 bytes: all that training may take, and what is taken before any activation is."""

    budget: float
    weights: float
    adapter: float  # masters, optimizer states, averages, gradients that wait for the next micro-batch
    beside: float
    held: float = 0.0  # encoded pictures and captions

    @property
    def activations(self) -> float:
        """Bytes left for activations and fresh gradients."""
        return (self.budget - self.weights - self.adapter - self.beside - self.held) * GB


def room(
    components: Components, config: TrainConfig, device: torch.device, trained: int, free: float, held: int = 0
) -> Room:
    """What there is, and what stays from step to step.

    Args:
        trained: bytes of the adapter's masters.
        free: GB of the device that nobody else holds.
        held: bytes of encoded pictures and captions on the device.
    """
    budget = config.memory.budget or free
    return Room(budget, resident(components, config) / GB, kept(config, trained) / GB, beside(device), held / GB)


def kept(config: TrainConfig, trained: int) -> float:
    """Bytes that stay from step to step for so many bytes of masters."""
    states = 0.5 if "8bit" in config.optimizer.type.lower() else 2
    return trained * (1 + states + config.optimizer.ema + (config.optimizer.accumulation > 1))


def resident(components: Components, config: TrainConfig) -> int:
    """Bytes of frozen weights beside the loop: only the parts that run stay."""
    models = [components.denoiser, *(components.text_encoders if config.adapter.trains_text else ())]
    return sum(p.numel() * p.element_size() for m in models for p in m.parameters() if not p.requires_grad)


def beside(device: torch.device) -> float:
    return BESIDE.get(device.type, BESIDE_GPU)


def free_gb(device: torch.device) -> float:
    """What the device has, less what others hold."""
    if (free := devices.free_bytes(device)) is not None:
        held = getattr(torch.get_device_module(device), "memory_reserved", lambda device: 0)
        return (free + held(device)) / GB
    return (psutil.virtual_memory().available + psutil.Process().memory_info().rss) / GB


def draws(config: AdapterConfig) -> bool:
    """Whether the adapter's layers draw random numbers in training."""
    return max(config.dropout, config.rank_dropout, config.module_dropout) > 0


def forced(denoiser: nn.Module, config: TrainConfig, device: torch.device) -> Saving | None:
    """What the settings say, where they leave nothing to decide."""
    if config.memory.checkpointing == "auto":
        return None
    if config.memory.checkpointing == "none":
        return PLAIN
    return Saving(blocks(denoiser), config.memory.offload and device.type != "cpu")


def plentiful(components: Components, config: TrainConfig, plan: Plan, room: Room) -> bool:
    """Whether the room is so large that nothing needs to be counted."""
    pixels = ((config.data.resolution or components.resolution) // components.latent.factor) ** 2
    wanted = PER_PIXEL * (plan.dtype.itemsize // 2) * pixels * config.data.batch_size
    wanted *= 1 + config.adapter.trains_text
    if config.adapter.type not in ("lora", "locon"):
        wanted += 3 * room.weights * GB  # the others make weights anew in every step
    return wanted < room.activations


def decide(
    family: Family, components: Components, config: TrainConfig, plan: Plan, trained: int, held: int = 0
) -> tuple[Saving, Adjusted | None]:
    """How this run saves memory, and what a person is told of it. Counts steps without weights where it must.

    Args:
        trained: bytes of the adapter's masters.
        held: bytes of encoded pictures and captions on the device.
    """
    given = forced(components.denoiser, config, plan.device)
    left = room(components, config, plan.device, trained, free_gb(plan.device), held)
    if given is not None:
        return given, None
    hollow = isinstance(next(components.denoiser.parameters()), FakeTensor)  # nothing has to fit anywhere
    if hollow or plentiful(components, config, plan, left):
        return PLAIN, None
    step = HollowStep(family, emptied(components, plan.dtype), config, plan.dtype)
    fitted = fit(step, left.activations, offload=plan.device.type != "cpu")
    return fitted.saving, told(fitted, left) if fitted.saving != PLAIN else None


def told(fitted: Fitted, left: Room) -> Adjusted:
    """The plan in numbers."""
    base = left.budget - left.activations / GB
    peak, plain = base + fitted.count.peak / GB, base + fitted.plain.peak / GB
    where = ", and what they begin with waits in host memory" if fitted.saving.offload else ""
    count = len(fitted.saving.recomputed)
    what = f"{count} parts of the denoiser are computed twice{where}" if count else "Frozen layers keep less"
    more = f"{fitted.count.over(fitted.plain):.0%} more operations"
    why = f"{peak:.1f} GB in place of {plain:.1f}, for a budget of {left.budget:.1f} GB, at {more}; counted"
    return Adjusted(what, why)
