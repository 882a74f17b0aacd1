"""An adapter on a base model: its layers, its weights, its switch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trainers.adapters.tokens import TOKENS, NewTokens
from trainers.adapters.weights import LoraWeights, Weights, weights_of
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import FamilySpec

__all__ = ["DENOISER", "NAME", "Adapter", "LoraWeights", "Place", "Weights", "modules_of_state", "pair", "tensors_of"]

NAME = "default"  # peft's name of the one adapter we attach
DENOISER = "denoiser"
ALPHA = "alpha"  # beside the tensors in a checkpoint
OUR_NAMES = {"lora_A": "down", "lora_B": "up", "lora_magnitude_vector": "magnitude"}  # others keep peft's
Place = tuple[str, str]  # (part, diffusers module path); a part is `denoiser`, `text_0`, `text_1`, ...


@dataclass
class Adapter:
    """Layers by place, in a fixed order: the denoiser's, then each text encoder's, as the modules come."""

    layers: dict[Place, BaseTunerLayer]
    spec: FamilySpec | None = None  # None where it came from a file of an unnamed family
    unknown: tuple[str, ...] = ()  # keys of the file it came from that fit no module of the base
    tokens: NewTokens | None = None  # learnt beside the layers
    enabled: bool = field(default=True, init=False)

    def denoiser_parameters(self) -> list[nn.Parameter]:
        return [parameter for (part, _), _, parameter in self.trained() if part == DENOISER]

    def text_parameters(self) -> list[nn.Parameter]:
        return [parameter for (part, _), _, parameter in self.trained() if part != DENOISER]

    def token_parameters(self) -> list[nn.Parameter]:
        return self.tokens.parameters() if self.tokens else []

    def train_tokens(self, tokens: NewTokens | None) -> None:
        """Learn these beside the layers, which peft froze with the rest of the text encoder."""
        self.tokens = tokens
        for parameter in self.token_parameters():
            parameter.requires_grad_(True)

    @property
    def trained_bytes(self) -> int:
        """Of the fp32 masters, new tokens included."""
        masters = [*self.denoiser_parameters(), *self.text_parameters(), *self.token_parameters()]
        return sum(master.numel() * master.element_size() for master in masters)

    def trained(self) -> Iterator[tuple[Place, str, nn.Parameter]]:
        """(place, name in checkpoints, parameter) of everything that is trained in the layers."""
        for place, layer in self.layers.items():
            for name, parameter in tensors_of(layer).items():
                yield place, name, parameter

    def modules(self) -> dict[Place, Weights]:
        """What each module would have in a file now; the tensors are the live ones."""
        return {place: weights_on(layer) for place, layer in self.layers.items()}

    def state(self) -> dict[str, Tensor]:
        """Copies of all weights, fp32, on the CPU, keyed part/path.down, .up and so on, and part/path.alpha (fp64).

        New tokens are keyed tokens/part.
        """
        state = {key: rows.detach().to("cpu", copy=True) for key, rows in self._rows().items()}
        for place, layer in self.layers.items():
            for name, weight in tensors_of(layer).items():
                state[_key(place, name)] = weight.detach().to("cpu", torch.float32, copy=True)
            state[_key(place, ALPHA)] = torch.tensor(weights_on(layer).alpha, dtype=torch.float64)
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned. UserError unless keys, shapes and alphas are exactly these.

        Checkpoints of earlier versions hold no alphas.
        """
        own = {_key(place, name): parameter for place, name, parameter in self.trained()} | self._rows()
        alphas = {_key(place, ALPHA): weights_on(layer).alpha for place, layer in self.layers.items()}
        wrong = sorted((own.keys() ^ state.keys()) - alphas.keys())
        wrong += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
        wrong += [key for key in alphas.keys() & state.keys() if alphas[key] != float(state[key])]
        if wrong:
            hint = "It was made with other adapter settings or another base; start a new run."
            raise UserError(f"The saved adapter does not fit: {len(wrong)} weights differ, first {wrong[0]}.", hint)
        for key, weight in own.items():
            weight.copy_(state[key])

    def _rows(self) -> dict[str, nn.Parameter]:
        return self.tokens.named() if self.tokens else {}

    def enable(self, on: bool) -> None:
        """Off: every forward is the base's own, new tokens aside. Which weights are trainable stays as it was."""
        for layer in self.layers.values():
            parameters = tensors_of(layer).values()
            trainable = [parameter.requires_grad for parameter in parameters]
            layer.enable_adapters(on)  # peft also thaws or freezes the weights
            for parameter, flag in zip(parameters, trainable, strict=True):
                parameter.requires_grad_(flag)
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

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Inside, the update of every module is multiplied; 0 is the base alone, new tokens aside. Afterwards 1."""
        self.set_strength(strength)
        try:
            yield
        finally:
            self.set_strength(1.0)  # of each layer's own kind: a DoRA keeps its strength apart from its scale

    def train(self, mode: bool = True) -> None:
        """Dropout of the adapter on or off; the base stays as it is."""
        for layer in self.layers.values():
            layer.training = mode
            if isinstance(layer, LoraLayer):
                layer.lora_dropout.train(mode)

    def eval(self) -> None:
        self.train(False)


def modules_of_state(state: Mapping[str, Tensor], config: AdapterConfig) -> dict[Place, Weights]:
    """What `Adapter.state` of a run with these settings stands for, without the base model."""
    modules: dict[Place, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part, path = key.split("/", 1)
        if part == TOKENS:  # no module
            continue
        path, name = path.rsplit(".", 1)
        modules.setdefault((part, path), {})[name] = tensor
    return {place: _weights_of_state(place, tensors, config) for place, tensors in modules.items()}


def _weights_of_state(place: Place, tensors: dict[str, Tensor], config: AdapterConfig) -> Weights:
    alpha = tensors.pop(ALPHA, None)
    if alpha is None:  # a LoRA that an earlier version saved
        return weights_of(tensors, (config.shape if place[0] == DENOISER else config.text_shape(0))[1])
    return weights_of(tensors, float(alpha))


def tensors_of(layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
    """A peft layer's trained tensors by their names in checkpoints."""
    found = {}
    for attribute in layer.adapter_layer_names:
        held = getattr(layer, attribute)
        if NAME in held:
            item = held[NAME]
            found[OUR_NAMES.get(attribute, attribute)] = item if isinstance(item, nn.Parameter) else item.weight
    return found


def put(layer: BaseTunerLayer, tensors: Mapping[str, Tensor]) -> None:
    """Make these, in fp32 on the base's device, the tensors of a peft layer, in place of all that it had.

    Shapes may be others than before, except for the magnitude, which takes those of peft.
    """
    device = layer.get_base_layer().weight.device
    for attribute in dict.fromkeys(layer.adapter_layer_names):
        held, name = getattr(layer, attribute), OUR_NAMES.get(attribute, attribute)
        if name in tensors:
            value = tensors[name].detach()
            if name == "magnitude":
                value = value.reshape(held[NAME].weight.shape)
            # fp32: in bf16 a step of 1e-4 vanishes once a weight passes 1/32
            parameter = nn.Parameter(value.to(device, torch.float32, copy=True).contiguous())
            if isinstance(held, nn.ParameterDict):
                held[NAME] = parameter
            else:
                held[NAME].weight = parameter
        elif NAME in held:
            del held[NAME]


def weights_on(layer: BaseTunerLayer) -> Weights:
    """The update that a peft layer makes at strength 1; its tensors are the live ones."""
    tensors = {name: parameter.detach() for name, parameter in tensors_of(layer).items()}
    alpha, rank = float((layer.lora_alpha if isinstance(layer, LoraLayer) else layer.alpha)[NAME]), layer.r[NAME]
    found = weights_of(tensors, alpha)
    return found if found.rank == rank else replace(found, alpha=alpha / rank * found.rank)


def pair(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """(down, up) of a peft LoRA layer. Each is asked in every step; by attribute it took 3.1 us, not 0.3."""
    downs, ups = layer._modules["lora_A"], layer._modules["lora_B"]
    return downs._modules[NAME]._parameters["weight"], ups._modules[NAME]._parameters["weight"]


def _key(place: Place, name: str) -> str:
    part, path = place
    return f"{part}/{path}.{name}"
