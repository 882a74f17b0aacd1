"""What a model family is: its data (FamilySpec) and the methods the recipe calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.families.sides import longest_side

Size = tuple[int, int]


def of_kind(known: Mapping[str, str], variant: str, prediction: str) -> str:
    """What a table of FamilySpec holds for a base's variant, or for what it predicts; "" where neither tells."""
    return known.get(variant) or known.get(prediction) or known.get("", "")


@dataclass(frozen=True)
class LatentSpec:
    """How pictures become latents: [B, 3, H, W] in -1..1 -> ([B, channels, H/factor, W/factor] - shift) * scaling."""

    channels: int
    factor: int
    scaling: float
    shift: float = 0.0


@dataclass
class Components:
    """A base model. Everything frozen, in eval mode, on the CPU until `.to()` is called on a part.

    A deferred one's parts have no weights until `residence.bring` reads them.
    """

    denoiser: nn.Module
    vae: nn.Module
    text_encoders: tuple[nn.Module, ...]
    tokenizers: tuple[Any, ...]
    scheduler: dict[str, Any]  # diffusers scheduler config: betas or shift; prediction_type epsilon, v_prediction, flow
    latent: LatentSpec
    resolution: int  # the base's native side in pixels
    multiple: int  # latent sides must be multiples of this: 2 ** (number of the denoiser's halvings)
    name: str  # file or folder name, for people and metadata
    path: Path | None  # where it was read from; None for random weights
    variant: str = ""  # of a family that comes in several: 3-medium, 3.5-medium, 3.5-large
    remarks: tuple[tuple[str, str], ...] = ()  # what a person should know of it, and why: (sentence, reason)

    @property
    def bounds(self) -> tuple[int, int | None]:
        """(what the sides of a picture must be divisible by, how long one may be or None for any), in pixels."""
        return self.latent.factor * self.multiple, longest_side(self.denoiser.config, self.latent.factor)

    def side(self, pixels: int) -> int:
        """Latents on the side of a picture of `pixels`, or of the few pixels less that make whole patches."""
        patch = getattr(self.denoiser.config, "patch_size", 1)
        return pixels // self.latent.factor // patch * patch


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told: embeds [B, L, D]; pooled [B, P] and time_ids [B, 6] where a family has them."""

    embeds: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def to(self, dtype: torch.dtype) -> "Conditioning":
        return self._each(lambda part: part.to(dtype))

    def on(self, device: torch.device) -> "Conditioning":
        return self._each(lambda part: part.to(device))

    def detach(self) -> "Conditioning":
        return self._each(lambda part: part.detach())

    def rows(self, numbers: Tensor) -> "Conditioning":
        """The conditioning of some captions out of many: numbers [B]."""
        return self._each(lambda part: part[numbers])

    def sized(self, time_ids: Tensor | None) -> "Conditioning":
        """With the sizes that each row's picture has, where the family is told them: [B, 6], fp32.

        They stay fp32: in bf16 a side of 3021 would read 3024.
        """
        return self if time_ids is None else Conditioning(self.embeds, self.pooled, time_ids)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        parts = (self.embeds, self.pooled, self.time_ids)
        return Conditioning(*(None if part is None else change(part) for part in parts))


def joined(rows: Sequence[Conditioning]) -> Conditioning:
    """Conditionings of one family after each other."""
    parts = zip(*((one.embeds, one.pooled, one.time_ids) for one in rows), strict=True)
    return Conditioning(*(None if part[0] is None else torch.cat(part) for part in parts))


@dataclass(frozen=True)
class FamilySpec:
    name: str  # "sd15"
    label: str  # "Stable Diffusion 1.x"
    native_resolution: int
    text_prefixes: tuple[str, ...]  # kohya prefix per text encoder: ("lora_te",)
    denoiser_prefix: str  # "lora_unet"
    architectures: Mapping[str, str]  # variant, prediction or "" -> modelspec id: "stable-diffusion-v1"
    base_versions: Mapping[str, str]  # the same -> ss_base_model_version: "sd_v1"
    implementation: str = "diffusers"  # modelspec: whose names the file's keys follow
    denoiser_name: str = "unet"  # its component in a diffusers pipeline
    layouts: tuple[str, ...] = ("kohya",)  # of the files a run writes, each named after its own where there are several
    joint: bool = False  # whether the original code fuses query, key and value: kohya's files then do, too
    pooled: bool = False  # whether its Conditioning has a pooled embedding
    embedding_keys: tuple[str, ...] = ("emb_params",)  # of a textual inversion's vectors, one per text encoder
    unheard: Mapping[str, str] = field(default_factory=dict)  # part -> pattern of layers without a say in the picture,
    # where they are in its last block, whose number is group 1; adapted all the same, as in other trainers' files


class Family(Protocol):
    """A model family: one object, about eight methods, in one file."""

    spec: FamilySpec

    def load(self, config: ModelConfig, dtype: torch.dtype, deferred: bool = False) -> Components:
        """Read the base from disk (or hub). UserError when it is missing, damaged or of another kind.

        `deferred`: without weights, which `residence.bring` reads for each model when it is needed.
        """

    def random(self, dtype: torch.dtype) -> Components:
        """Components in the family's true shapes with random weights, for benchmarks and tests."""

    def encode_image(self, vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, H, W] in -1..1 -> posterior mean and logvar [B, C, h, w], unscaled, fp32."""

    def tokenize(self, components: Components, captions: list[str]) -> tuple[Tensor, ...]:
        """Token ids [B, L] int64 per tokenizer, truncated and padded to its length."""

    def token_counts(self, components: Components, captions: list[str]) -> tuple[list[int], int]:
        """Tokens of each caption uncut, and how many the text encoder reads; the rest would be cut away."""

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        """Token ids -> Conditioning; differentiable, so a trained text encoder gets gradients."""

    def sizes(self, original: Size, top_left: Size, target: Size) -> tuple[int, ...]:
        """What the denoiser is told of a picture's sizes: its own, where the crop begins, the crop's; () for nothing.

        All (height, width), in pixels; `top_left` is counted in the picture as it was scaled for the crop.
        """

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """noisy [B, C, h, w], timesteps [B] -> prediction [B, C, h, w]."""

    def decode_image(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""


def told_nothing(original: Size, top_left: Size, target: Size) -> tuple[int, ...]:
    """`Family.sizes` of a family whose denoiser is not told of sizes."""
    return ()


def plain_sizes(family: Family, width: int, height: int, count: int, device: torch.device) -> Tensor | None:
    """What the denoiser is told of `count` uncropped pictures [count, 6]; None where it is told nothing."""
    sizes = family.sizes((height, width), (0, 0), (height, width))
    return torch.tensor([sizes] * count, dtype=torch.float32, device=device) if sizes else None
