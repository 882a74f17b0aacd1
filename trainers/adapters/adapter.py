"""An adapter on a base model: its layers, its weights, its switch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import FamilySpec

NAME = "default"  # peft's name of the one adapter we attach
DENOISER = "denoiser"
Place = tuple[str, str]  # (part, diffusers module path); a part is `denoiser`, `text_0`, `text_1`, ...


@dataclass(frozen=True)
class LoraWeights:
    """One module's update: delta W = alpha / rank * up @ down.

    down [rank, in] or [rank, in, kh, kw]; up [out, rank] or [out, rank, 1, 1].
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """delta W in fp32, in the shape of the base weight."""
        down, up = self.down.detach().float(), self.up.detach().float()
        product = up.flatten(1) @ down.flatten(1)
        return (product * (self.alpha / self.rank)).reshape(len(up), *down.shape[1:])


@dataclass
class Adapter:
    """Layers by place, in a fixed order: the denoiser's, then each text encoder's, as the modules come."""

    layers: dict[Place, LoraLayer]
    spec: FamilySpec | None = None  # None where it came from a file of an unnamed family
    unknown: tuple[str, ...] = ()  # keys of the file it came from that fit no module of the base
    enabled: bool = field(default=True, init=False)

    def denoiser_parameters(self) -> list[nn.Parameter]:
        return [p for (part, _), layer in self.layers.items() if part == DENOISER for p in weights(layer)]

    def text_parameters(self) -> list[nn.Parameter]:
        return [p for (part, _), layer in self.layers.items() if part != DENOISER for p in weights(layer)]

    def modules(self) -> dict[Place, LoraWeights]:
        """What each module would have in a file now; the tensors are the live ones."""
        return {
            place: LoraWeights(*(w.detach() for w in weights(layer)), alpha=float(layer.lora_alpha[NAME]))
            for place, layer in self.layers.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Copies of all weights, fp32, on the CPU, keyed part/path.down and .up."""
        return {key: weight.detach().to("cpu", torch.float32, copy=True) for key, weight in self._named()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned. UserError unless keys and shapes are exactly these."""
        own = dict(self._named())
        wrong = sorted(own.keys() ^ state.keys())
        wrong += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
        if wrong:
            hint = "It was made with other adapter settings or another base; start a new run."
            raise UserError(f"The saved adapter does not fit: {len(wrong)} weights differ, first {wrong[0]}.", hint)
        for key, weight in own.items():
            weight.copy_(state[key])

    def enable(self, on: bool) -> None:
        """Off: every forward is the base's own. Which weights are trainable stays as it was."""
        for layer in self.layers.values():
            trainable = [w.requires_grad for w in weights(layer)]
            layer.enable_adapters(on)  # peft also thaws or freezes the weights
            for weight, flag in zip(weights(layer), trainable, strict=True):
                weight.requires_grad_(flag)
        self.enabled = on

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the base model alone."""
        before = self.enabled
        self.enable(False)
        try:
            yield
        finally:
            self.enable(before)

    def set_strength(self, strength: float) -> None:
        """Multiply the update of every module; 1 is as trained."""
        for layer in self.layers.values():
            layer.set_scale(NAME, strength)

    def train(self, mode: bool = True) -> None:
        """Dropout of the adapter on or off; the base stays as it is."""
        for layer in self.layers.values():
            layer.training = mode
            layer.lora_dropout.train(mode)

    def eval(self) -> None:
        self.train(False)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for (part, path), layer in self.layers.items():
            for side, weight in zip(("down", "up"), weights(layer), strict=True):
                yield f"{part}/{path}.{side}", weight


def modules_of_state(state: dict[str, Tensor], config: AdapterConfig) -> dict[Place, LoraWeights]:
    """What `Adapter.state` of a run with these settings stands for, without the base model."""
    modules = {}
    for key, down in state.items():
        if key.endswith(".down"):
            part, path = key.removesuffix(".down").split("/", 1)
            _, alpha = config.shape if part == DENOISER else config.text_shape
            modules[part, path] = LoraWeights(down, state[f"{part}/{path}.up"], alpha)
    return modules


def weights(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """(down, up) of a peft layer."""
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
