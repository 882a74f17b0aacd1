"""The models a pipeline is made of: how each is built from its config, and what its tensors are called on disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from trainers.families import ldm, mmdit
from trainers.families.ldm import Names
from trainers.libraries import diffusers, transformers

DEFAULT_SCALING = 0.18215  # configs of Stable Diffusion 1.x VAEs written before the key existed


@dataclass(frozen=True)
class Part:
    """One model of a pipeline."""

    folder: str  # its folder in a diffusers pipeline: unet
    label: str  # for errors: UNet
    make: Callable[[Mapping[str, Any]], nn.Module]  # its config -> the module
    in_file: Callable[[Mapping[str, Any]], Names]  # its config -> the names of its tensors in a checkpoint file
    in_folder: Names = ldm.same_names


@dataclass(frozen=True)
class Layout:
    """What a family's pipeline holds. Text encoders and tokenizers stand in the order the family reads them."""

    denoiser: Part
    vae: Part
    texts: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.denoiser, self.vae, *self.texts

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Their folders: tokenizer, tokenizer_2."""
        return tuple(part.folder.replace("text_encoder", "tokenizer") for part in self.texts)


def clip(folder: str, prefix: str, projected: bool = False) -> Part:
    """A CLIP text encoder whose tensors begin with `prefix` in a checkpoint; `projected` gives a pooled embedding."""
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return Part(
        folder,
        "text encoder",
        lambda config: kind(transformers.CLIPTextConfig.from_dict(dict(config))),
        lambda _: ldm.text_names(prefix),
        ldm.text_names(""),
    )


UNET = Part("unet", "UNet", diffusers.UNet2DConditionModel.from_config, ldm.unet_names)
VAE = Part(
    "vae",
    "VAE",
    lambda config: diffusers.AutoencoderKL.from_config({"scaling_factor": DEFAULT_SCALING, **config}),
    ldm.vae_names,
    ldm.folder_vae_names,
)
TRANSFORMER = Part("transformer", "transformer", diffusers.SD3Transformer2DModel.from_config, mmdit.transformer_names)


def random_module(make: Callable[[], nn.Module], dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A frozen module whose matrices are 0.02 times the same block of normal numbers over and over, biases 0, norms 1.

    A full-size UNet takes a second this way, where drawing each number takes a minute. Where tensors have no numbers
    (torch's FakeTensorMode), none are written.
    """
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed)).mul_(0.02).to(dtype)
    with torch.device("meta"):
        module = make()
    made = {name: buffer for name, buffer in module.named_buffers() if not buffer.is_meta}
    nn.Module.to(module.to_empty(device="cpu"), dtype)  # diffusers' own `to` warns about each change of dtype

    if isinstance(block, FakeTensor):
        return module.requires_grad_(False).eval()

    def fill(tensor: Tensor) -> None:
        flat = tensor.view(-1)
        for start in range(0, len(flat), len(block)):
            piece = flat[start : start + len(block)]
            piece.copy_(block[: len(piece)])

    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fill(parameter.data)
        else:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    for name, buffer in module.named_buffers():
        if name in made:
            buffer.copy_(made[name])
        elif name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))  # CLIP's position numbers
        else:
            fill(buffer)
    return module.requires_grad_(False).eval()
