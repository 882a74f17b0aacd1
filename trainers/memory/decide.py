"""What a run gives up for memory: as the settings say, or as little as its budget asks for."""

import math
from dataclasses import dataclass, replace

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from trainers import computer, devices
from trainers.adapters.targets import parts, shapes
from trainers.config import AdapterConfig, MemoryConfig, TrainConfig
from trainers.events import Adjusted
from trainers.families.base import Components, Family
from trainers.memory.device import Plan
from trainers.memory.fit import Fitted, fit, fit_streamed, fitted_as
from trainers.memory.hollow import HollowStep, emptied
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.units import blocks
from trainers.optimizers import states
from trainers.prepacked import prepacked_bytes
from trainers.preservation import class_bytes
from trainers.waiting import waits

GB = 2**30
# GB beside what is counted: on a CPU torch, diffusers and their libraries (0.48 measured on Linux; 0.46 more with the
# torch 2.13 that is built for CUDA 13, though no card is there), on a GPU the workspaces of its libraries: 0.06 to 0.33
# measured on an H100 over 13 settings of SD 1.5 and SDXL. What they may take more than usual is not planned with.
BESIDE = {"cpu": 0.5}
BUILT_FOR_CUDA = 0.46
BESIDE_GPU, MORE_ON_GPU = 0.17, 0.18
AS_BEFORE = Adjusted(
    "The run saves memory as it began, though there is more now",
    "Otherwise its last bits would not be those of an uninterrupted run.",
)
PER_PIXEL = 2**20  # bytes of activations per latent pixel at 2 bytes a number: SDXL's and SD 1.5's take a third


@dataclass(frozen=True)
class Free:
    """Bytes that the plan leaves: between two steps, when no activations are there, and even within them."""

    between: float
    within: float


@dataclass(frozen=True)
class Room:
    """GB of 2^30 bytes: all that training may take, and what is taken before any activation is."""

    budget: float
    weights: float
    adapter: float  # masters, optimizer states, averages, gradients that wait for the next pass
    beside: float
    held: float = 0.0  # encoded pictures and captions, class pictures
    more: float = 0.0  # kept free
    prepacked: float = 0.0  # of the weights: a CPU's convolutions have theirs once more, ready to compute with
    spared: float = 0.0  # what that would have taken

    @property
    def activations(self) -> float:
        """Bytes left for activations and fresh gradients."""
        return (self.budget - self.weights - self.adapter - self.beside - self.more - self.held) * GB

    def for_(self, saving: Saving) -> "Room":
        """As it is for a run that saves so."""
        if saving.prepacked and not saving.streamed:
            return self
        return replace(self, weights=self.weights - self.prepacked, prepacked=0.0, spared=self.prepacked)

    def peak(self, fitted: Fitted) -> float:
        """GB that a step takes."""
        return self.weights + self.adapter + self.beside + self.held + fitted.taken / GB

    def free(self, fitted: Fitted) -> Free:
        return Free(self.activations + fitted.freed, self.activations - fitted.taken)


def room(
    components: Components, config: TrainConfig, device: torch.device, trained: int, free: float, held: int = 0
) -> Room:
    """What there is, and what stays from step to step.

    Args:
        trained: bytes of the adapter's masters.
        free: GB of the device that nobody else holds.
        held: bytes of encoded pictures and captions on the device.
    """
    budget, weights = config.memory.budget or free, resident(components, config)
    prepacked = prepacked_bytes(components.denoiser, config.memory) if device.type == "cpu" else 0
    weights += prepacked
    held += class_bytes(config, components)
    more = 0.0 if device.type in BESIDE else MORE_ON_GPU
    adapter = kept(config, trained, device)
    if device.type == "cuda" and config.memory.graphs != "none" and not config.several_passes:
        adapter += trained  # a graph's gradients stay from step to step, too
    aside = beside(device) + (ordering(components.denoiser, device) + written(config, trained, device)) / GB
    return Room(budget, weights / GB, adapter / GB, aside, held / GB, more, prepacked / GB)


def kept(config: TrainConfig, trained: int, device: torch.device) -> float:
    """Bytes that stay from step to step for so many bytes of masters."""
    copies = 1 + states(config.optimizer, device) + config.optimizer.averages + config.several_passes
    return trained * copies


def resident(components: Components, config: TrainConfig) -> int:
    """Bytes of frozen weights beside the loop: only the parts that run stay, and of them what waits nowhere else.

    Tables that no layer trains count, too: Stable Diffusion 3.5 Medium's of positions has 0.42 GB in bf16.
    """
    models = [components.denoiser, *(components.text_encoders if config.adapter.trains_text else ())]
    weights = [p for model in models for p in model.parameters() if not (p.requires_grad or waits(p))]
    weights += [buffer for model in models for buffer in model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in weights)


def beside(device: torch.device) -> float:
    """GB that are taken beside what is counted."""
    more = BUILT_FOR_CUDA if device.type == "cpu" and torch.version.cuda else 0.0
    return BESIDE.get(device.type, BESIDE_GPU) + more


def written(config: TrainConfig, trained: int, device: torch.device) -> int:
    """Bytes of a checkpoint's copy and of the weights for a file, which are written on beside the steps.

    Where a device has memory of its own, they lie in the computer's.
    """
    return trained * (2 + states(config.optimizer, device) + config.optimizer.averages) if device.type == "cpu" else 0


def ordering(denoiser: nn.Module, device: torch.device) -> int:
    """Bytes in which a CPU's library puts the weights of a convolution in an order of its own while that computes."""
    if device.type != "cpu":
        return 0
    weights = (layer.weight for layer in denoiser.modules() if isinstance(layer, nn.Conv2d))
    return max((weight.numel() * weight.element_size() for weight in weights), default=0)


def free_gb(device: torch.device) -> float:
    """What the device has, less what others hold."""
    if (free := devices.free_bytes(device)) is not None:
        held = getattr(torch.get_device_module(device), "memory_reserved", lambda device: 0)
        return (free + held(device)) / GB
    return (computer.available_bytes() + psutil.Process().memory_info().rss) / GB


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


def at_most(components: Components, config: TrainConfig, plan: Plan, room: Room) -> float:
    """Bytes that activations take at most: where there are more, nothing needs to be counted.

    Score matrices grow with the square of the pixels, and no bound holds for them.
    """
    if config.memory.attention == "math":
        return math.inf
    pixels = ((config.data.resolution or components.resolution) // components.latent.factor) ** 2
    wanted = PER_PIXEL * (plan.dtype.itemsize // 2) * pixels * config.at_once
    wanted *= 1 + config.adapter.trains_text
    if config.adapter.type not in ("lora", "locon"):
        wanted += 3 * room.weights * GB  # the others make weights anew in every step
    return wanted


def decide(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: Plan,
    held: int = 0,
    before: Saving | None = None,
) -> tuple[Saving, Adjusted | None, Free]:
    """How this run saves memory, what a person is told of it, what is left. Counts steps where it must.

    The components need no weights yet, and have no adapter.

    Args:
        held: bytes of encoded pictures and captions on the device.
        before: how an earlier sitting saved, which is kept to if it fits: another way has other last bits.
    """
    hollow = isinstance(next(components.denoiser.parameters()), FakeTensor)  # nothing has to fit anywhere
    if config.memory.stream != "all":
        given = forced(components.denoiser, config, plan.device)
        trained = most_trained(components, family, config)
        left = room(components, config, plan.device, trained, free_gb(plan.device), held)
        most = at_most(components, config, plan, left)
        free = Free(left.activations, left.activations - most)
        settled = given == PLAIN or (given and config.memory.stream == "none" and not left.prepacked)
        if settled and (hollow or most < math.inf):
            return given, None, free
        if hollow or most < left.activations:
            return before or given or PLAIN, AS_BEFORE if before and before != (given or PLAIN) else None, free
    left, fitted = needed(family, components, config, plan, plan.device, free_gb(plan.device), held=held, before=before)
    return (
        fitted.saving,
        told(fitted, left, config.memory, plan.device) if fitted.saving != PLAIN else None,
        left.free(fitted),
    )


def most_trained(components: Components, family: Family, config: TrainConfig) -> int:
    """No fewer bytes than an adapter's masters take: two pairs of matrices in each layer, as a LoHa has them."""
    models, total = parts(components), 0
    for (part, path), (rank, _) in shapes(components, family.spec, config.adapter).items():
        weight = models[part].get_submodule(path).weight
        total += 2 * 4 * rank * (len(weight) + weight[0].numel())
    return total


def needed(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: Plan,
    device: torch.device,
    free: float,
    encoded: tuple[int, int] = (0, 0),
    held: int = 0,
    before: Saving | None = None,
) -> tuple[Room, Fitted]:
    """What a step may take of `free` GB, and how it saves memory to keep to that.

    Args:
        encoded: pictures and captions that will be encoded and kept on the device.
        held: bytes of those that are there already.
        before: how it is to be saved if that fits.
    """
    step = HollowStep(family, emptied(components, plan.dtype), config, plan.dtype)
    packed = replace(components, denoiser=step.denoiser)  # packed or not, as the run's will be
    left = room(packed, config, device, step.adapter_bytes, free, held + step.held(*encoded))
    if before:
        fitted = fitted_as(step, before, device)
        if fitted.taken <= left.for_(before).activations:
            return left.for_(before), fitted
    fitted = _fitted(step, config, device, left)
    if fitted.saving == PLAIN or not left.prepacked:
        return left.for_(fitted.saving), fitted
    bare = left.for_(replace(PLAIN, prepacked=False))  # the first that is given up: it is worth less than what follows
    lighter = _fitted(step, config, device, bare)
    if fitted.saving.streamed or lighter.count.flops < fitted.count.flops or fitted.taken > left.activations:
        return bare, replace(lighter, saving=replace(lighter.saving, prepacked=False))
    return left, fitted


def _fitted(step: HollowStep, config: TrainConfig, device: torch.device, left: Room) -> Fitted:
    given, wish = forced(step.denoiser, config, device), config.memory.stream
    in_file = device.type == "cpu" and config.memory.quantize != "none"
    if wish == "all":
        offload = given.offload if given else None
        return fit_streamed(step, left.activations, device, step.count(PLAIN), every=True, offload=offload)
    may = wish == "auto" and not in_file
    if given is None:
        return fit(step, left.activations, device, may)
    count = step.count(given)
    plain = count if given == PLAIN else step.count(PLAIN)
    if may and given != PLAIN and count.peak > left.activations:
        return fit_streamed(step, left.activations, device, plain)
    return Fitted(given, count, plain)


def told(fitted: Fitted, left: Room, config: MemoryConfig, device: torch.device) -> Adjusted:
    """The plan in numbers, and why it is so."""
    saving, plain = fitted.saving, left.peak(Fitted(PLAIN, fitted.plain, fitted.plain)) + left.spared
    where = ", and what they begin with waits in host memory" if saving.offload else ""
    count = len(saving.recomputed)
    what = f"{count} parts of the denoiser are computed twice{where}" if count else "Frozen layers keep less"
    if replace(saving, prepacked=True) == PLAIN:
        what = "Convolutions keep their weights in one order, which takes the processor longer"
    more = f"{fitted.count.over(fitted.plain):.0%} more operations"
    if saving.streamed:
        place = "in the base's file" if device.type == "cpu" else "in host memory"
        what += f"; the weights of {len(saving.streamed)} wait {place} and are there only while they run"
        more += (
            f" and {fitted.moved / GB:.2g} GB of weights {'read' if device.type == 'cpu' else 'copied'} in each pass"
        )
    why = f"for a budget of {left.budget:.1f} GB"
    if plain + left.more < left.budget:  # nothing had to be saved
        settings = {"stream": config.stream == "all", "checkpointing": config.checkpointing not in ("auto", "none")}
        asked = next((name for name, wished in settings.items() if wished), None)
        why = f"as memory.{asked} asks (auto would go without)" if asked else "as before"
    return Adjusted(what, f"{left.peak(fitted):.1f} GB in place of {plain:.1f}, {why}, at {more}; counted")
