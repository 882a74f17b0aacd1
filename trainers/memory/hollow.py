"""A training step without numbers: the base's shapes on the meta device, an adapter on them, one forward and backward.

There a full-size model takes no memory, and every allocation of the step can be followed.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from trainers.adapters.registry import ADAPTERS
from trainers.adapters.tokens import TriggerTokenizer, start_tokens
from trainers.config import TrainConfig
from trainers.families import read_sd
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.families.loading import CONFIGS
from trainers.memory.meter import Meter, attending
from trainers.memory.packed import pack
from trainers.memory.saving import Saving, apply
from trainers.memory.spans import Span, spanned
from trainers.memory.units import units
from trainers.stores import expected_bytes

LOOKED = 4  # fp32 tensors of its pictures' latents that a step holds beside its passes: noise, target and so on
NEVER = 1e-12  # how likely a layer is left out, where the step is to be one that has them all


@dataclass(frozen=True)
class Count:
    """One pass, forward and backward; bytes are those beside weights, the adapter's masters and optimizer states."""

    peak: int
    forward: int  # operations of the forward pass
    flops: int  # operations of forward and backward pass
    attended: int = 0  # of those, attention's
    spans: tuple[Span, ...] = ()  # of its checkpointed blocks

    def over(self, plain: "Count") -> float:
        """Operations more than another step's, as a share."""
        return self.flops / plain.flops - 1


@dataclass
class Traced:
    """What one unit does in the forward pass of an unsaving step: bytes it leaves behind, operations."""

    kept: int = 0  # alive after it and not before, its output aside
    flops: int = 0  # to be done again when it is checkpointed: all but a last frozen layer's


def hollow(family: Family, dtype: torch.dtype, variant: str = "") -> Components:
    """Components in the family's true shapes without weights, denoiser and text encoders in `dtype`."""
    layout, source = family.source.layout, family.source
    settings = read_sd.bundled(layout, CONFIGS / (variant or source.usual or family.spec.name), source.padding)
    components = read_sd.without_weights(layout, settings, dtype)
    components.scheduler.setdefault("prediction_type", source.predictions[0])
    return components


def emptied(components: Components, dtype: torch.dtype) -> Components:
    """The same architectures without weights, and without new tokens."""
    plain = tuple(one.tokenizer if isinstance(one, TriggerTokenizer) else one for one in components.tokenizers)
    encoders = tuple(emptied_model(encoder, dtype) for encoder in components.text_encoders)
    return replace(
        components, denoiser=emptied_model(components.denoiser, dtype), text_encoders=encoders, tokenizers=plain
    )


@dataclass
class HollowStep:
    """Forward and backward pass over the pictures computed at once, on components without weights."""

    family: Family
    components: Components
    config: TrainConfig
    dtype: torch.dtype
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        pack(self.denoiser, self.config.memory.quantize)
        settings = self.config.adapter
        if settings.module_dropout:  # a step that leaves nothing out, in the way of those that may
            settings = settings.model_copy(update={"module_dropout": NEVER})
        adapter = ADAPTERS[settings.type](self.components, self.family.spec, settings, self.config.seed)
        adapter.train()
        adapter.train_tokens(start_tokens(self.components, self.family.spec, self.config))
        self.parameters = [
            *adapter.denoiser_parameters(),
            *adapter.text_parameters(),
            *adapter.token_parameters(),
        ]
        self._told = None if self.config.adapter.trains_text else self._encode()

    @property
    def denoiser(self) -> nn.Module:
        return self.components.denoiser

    @property
    def adapter_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parameters)

    def held(self, pictures: int, captions: int) -> int:
        """Bytes of so many of them, encoded, on the device."""
        with torch.no_grad():
            told = (self._told or self._encode()).rows(torch.zeros(1, dtype=torch.long, device="meta"))
        latent = (self.components.latent.channels, self._side, self._side)
        return expected_bytes(self.config, latent, pictures, told, captions)

    def count(self, saving: Saving) -> Count:
        """The step with what is given up for memory."""
        apply(self.denoiser, saving)
        latents, timesteps = self._inputs()
        for parameter in self.parameters:
            parameter.grad = None
        with self._attending, Meter() as meter, spanned(self.denoiser, meter) as spans:
            loss = self._forward(latents, timesteps)
            forward = meter.flops
            loss.backward()
        for parameter in self.parameters:
            parameter.grad = None
        beside = LOOKED * latents.nbytes
        spans = tuple(replace(span, peak=span.peak + beside) for span in spans)
        return Count(meter.peak + beside, forward, meter.flops, meter.attended, spans)

    def trace(self) -> dict[str, Traced]:
        """What every unit of the denoiser does where nothing is saved but what costs no operations."""
        apply(self.denoiser, Saving())
        latents, timesteps = self._inputs()
        with self._attending, Meter() as meter, self._watched(meter) as traced:
            loss = self._forward(latents, timesteps)
        del loss
        return traced

    @property
    def _attending(self) -> AbstractContextManager[None]:
        return attending(self.config.memory.attention)

    def _forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        told = self._told or self._encode()
        prediction = self.family.denoise(self.denoiser, latents.to(self.dtype), timesteps, told)
        return (prediction.float() - latents).pow(2).mean()

    def _inputs(self) -> tuple[Tensor, Tensor]:
        count, side = self.config.at_once, self._side
        latents = torch.empty(count, self.components.latent.channels, side, side, device="meta")
        return latents, torch.zeros(count, dtype=torch.long, device="meta")

    @property
    def _side(self) -> int:
        return self.components.side(self.config.data.resolution or self.components.resolution)

    def _encode(self) -> Conditioning:
        count = self.config.at_once
        tokens = tuple(t.to("meta") for t in self.family.tokenize(self.components, ["a picture"] * count))
        told = self.family.encode_text(self.components.text_encoders, tokens, self.config.model.clip_skip)
        told = told if self.config.adapter.trains_text else told.detach()
        pixels = self._side * self.components.latent.factor
        return told.to(self.dtype).sized(plain_sizes(self.family, pixels, pixels, count, torch.device("meta")))

    @contextmanager
    def _watched(self, meter: Meter) -> Iterator[dict[str, Traced]]:
        traced = {path: Traced() for path, _ in units(self.denoiser)}
        hooks = []

        def before(path: str):  # noqa: ANN202
            def hook(*_: object) -> None:
                traced[path].kept, traced[path].flops = -meter.now, -meter.flops

            return hook

        def after(path: str):  # noqa: ANN202
            def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
                outputs = [t for t in (output if isinstance(output, tuple) else (output,)) if t is not None]
                traced[path].kept += meter.now - sum(t.untyped_storage().nbytes() for t in outputs)
                traced[path].flops += meter.flops - meter.last

            return hook

        for path, module in units(self.denoiser):
            hooks += [module.register_forward_pre_hook(before(path)), module.register_forward_hook(after(path))]
        try:
            yield traced
        finally:
            for hook in hooks:
                hook.remove()


def emptied_model(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same architecture without weights."""
    with torch.device("meta"):
        made = type(model).from_config(model.config) if hasattr(model, "from_config") else type(model)(model.config)
    return nn.Module.to(made, dtype).eval().requires_grad_(False)  # diffusers' own `to` warns of nothing
