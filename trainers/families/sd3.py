"""Stable Diffusion 3 and 3.5: a transformer trained by flow matching, told by two CLIPs and, if wished, T5."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import loading, mmdit, t5, text, unet
from trainers.families.base import Components, Conditioning, FamilySpec, told_nothing
from trainers.families.detect import Identity
from trainers.families.headers import read_shapes
from trainers.families.loading import END_OF_TEXT, EXCLAMATION, Source
from trainers.families.locate import TAKES_CLIP, find_here
from trainers.families.parts import TRANSFORMER, VAE, Layout, clip
from trainers.families.residence import bring
from trainers.families.weights import Weights

CLIP_L, CLIP_G = "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."
NORM = "text_model.final_layer_norm.weight"
LARGE = 38  # blocks
WITHOUT_T5 = (
    "Stable Diffusion 3 is used without T5",
    "model.t5 is empty. The CLIPs alone read short captions well; long sentences are followed less closely.",
)


def choose_variant(weights: Weights, found: Identity, config: ModelConfig) -> str:
    """sd3-medium, sd3.5-medium or sd3.5-large, by the number of blocks and the second attention."""
    blocks = [name for name in weights if name.startswith(f"{mmdit.PREFIX}joint_blocks.")]
    if 1 + max(int(name.split(".")[3]) for name in blocks) == LARGE:
        return "sd3.5-large"
    return "sd3.5-medium" if any(".x_block.attn2." in name for name in blocks) else "sd3-medium"


def variant_of(config: Mapping[str, Any]) -> str:
    """3-medium, 3.5-medium or 3.5-large; a transformer of another size counts as the one it resembles."""
    if config["num_layers"] >= LARGE:
        return "3.5-large"
    return "3.5-medium" if config["dual_attention_layers"] else "3-medium"


def define(weights: Weights) -> None:
    """Names for the transformer's views, and CLIP-L's projection, which is the identity where a file leaves it out."""
    mmdit.define(weights)
    projection, norm = f"{CLIP_L}text_projection.weight", f"{CLIP_L}{NORM}"
    if projection not in weights and norm in weights:
        width = weights.shapes[norm][0]
        weights.define(projection, norm, (width, width), lambda t: torch.eye(len(t), dtype=t.dtype))


def text_files(config: ModelConfig) -> dict[str, str]:
    """The CLIPs' own files, as they are published beside bases that bring none: the prefix of a base's names -> file.

    Raises:
        UserError: one is missing, or is none.
    """
    files = {CLIP_L: config.clip_l, CLIP_G: config.clip_g}
    found = {prefix: file for prefix, file in files.items() if file}
    for file in found.values():
        path = find_here(file, TAKES_CLIP, "text encoder")
        readable = path is not None and path.is_file() and path.suffix.lower() == ".safetensors"
        if not readable or NORM not in read_shapes(path)[0]:
            raise UserError(f"{file} is no .safetensors file of a CLIP text encoder.", "Choose clip_l (clip_g).")
    return found


class Sd3:
    spec = FamilySpec(
        name="sd3",
        label="Stable Diffusion 3",
        native_resolution=1024,
        text_prefixes=("lora_te1", "lora_te2"),
        denoiser_prefix="lora_unet",
        architectures={
            "3-medium": "stable-diffusion-3-medium",
            "3.5-medium": "stable-diffusion-3-5-medium",
            "3.5-large": "stable-diffusion-3-5-large",
        },
        base_versions={"3-medium": "medium", "3.5-medium": "5-medium", "3.5-large": "5-large"},
        denoiser_name="transformer",
        layouts=("diffusers", "kohya"),
        joint=True,
        pooled=True,
        embedding_keys=("clip_l", "clip_g"),
        unheard={"denoiser": r"transformer_blocks\.(\d+)\.attn\.add_q_proj$"},  # of the last block no text comes out
    )
    source = Source(
        Layout(
            TRANSFORMER,
            VAE,
            (clip("text_encoder", CLIP_L, projected=True), clip("text_encoder_2", CLIP_G, projected=True)),
        ),
        (END_OF_TEXT, EXCLAMATION),
        define=define,
        variant=choose_variant,
        text_files=text_files,
        usual="sd3-medium",
        predictions=("flow",),
    )
    encode_image, decode_image = staticmethod(unet.encode_image), staticmethod(unet.decode_image)
    tokenize, token_counts = staticmethod(text.tokenize), staticmethod(text.token_counts)
    sizes = staticmethod(told_nothing)

    def load(self, config: ModelConfig, dtype: torch.dtype, deferred: bool = False) -> Components:
        """Read the base from disk (or hub): transformer and CLIPs in `dtype`, the VAE in fp32.

        Raises:
            UserError: the model is missing, damaged, of another kind, or at odds with the settings.
        """
        components = loading.load(self.spec, self.source, config, dtype, deferred)
        components.variant = variant_of(components.denoiser.config)
        if config.t5:
            encoder, tokenizer = t5.load(config.t5, components.denoiser.config.joint_attention_dim, dtype)
            components.text_encoders += (encoder if deferred else bring(encoder, torch.device("cpu")),)
            components.tokenizers += (tokenizer,)
        else:
            components.remarks += (WITHOUT_T5,)
        return components

    def random(self, dtype: torch.dtype, variant: str = "sd3-medium") -> Components:
        """Components in the true shapes of a variant, with random weights."""
        components = loading.untrained(self.spec, self.source, dtype, variant)
        components.variant = variant_of(components.denoiser.config)
        return components

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        """Both CLIPs side by side [B, 77, 768 + 1280], and their projections [B, 768 + 1280].

        With T5, the CLIPs padded to its width and T5's tokens after them: [B, 77 + 256, 4096].
        """
        hidden, pooled = zip(
            *(text.encode_penultimate(e, ids, clip_skip) for e, ids in zip(text_encoders[:2], tokens[:2], strict=True)),
            strict=True,
        )
        embeds = torch.cat(hidden, dim=-1)
        if len(text_encoders) > 2:
            more = text_encoders[2](tokens[2]).last_hidden_state
            embeds = torch.cat([F.pad(embeds, (0, more.shape[-1] - embeds.shape[-1])), more.to(embeds.dtype)], dim=1)
        return Conditioning(embeds, torch.cat(pooled, dim=-1))

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """noisy [B, C, h, w], timesteps [B] in 0..1000 -> the velocity noise - latents, [B, C, h, w].

        Without T5 the text is padded to the transformer's width, and zeros stand where T5's tokens would follow, as
        diffusers does it.
        """
        joint, missing = conditioning.embeds, denoiser.config.joint_attention_dim - conditioning.embeds.shape[-1]
        if missing:
            joint = F.pad(joint, (0, missing, 0, t5.TOKENS))
        return denoiser(
            noisy,
            encoder_hidden_states=joint,
            pooled_projections=conditioning.pooled,
            timestep=timesteps,
            return_dict=False,
        )[0]


SD3 = Sd3()
