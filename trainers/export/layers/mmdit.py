"""Every layer of Stable Diffusion 3's transformer that an adapter can name, with its weight's shape, from few numbers.

Paths are diffusers' (SD3Transformer2DModel). Source of the numbers: the configs of Stable Diffusion 3 Medium, 3.5
Medium and 3.5 Large [Esser et al. 2024].
"""

from dataclasses import dataclass

Shape = tuple[int, ...]
POOLED, TEXT, LATENT, PATCH, FREQUENCIES = 2048, 4096, 16, 2, 256


@dataclass(frozen=True)
class MMDiTNumbers:
    blocks: int  # also the number of heads, each 64 wide
    dual: int = 0  # the first blocks that have a second attention over the picture alone

    @property
    def width(self) -> int:
        return 64 * self.blocks


SD3_MEDIUM = MMDiTNumbers(24)
SD35_MEDIUM = MMDiTNumbers(24, dual=13)
SD35_LARGE = MMDiTNumbers(38)


def mmdit_shapes(numbers: MMDiTNumbers) -> dict[str, Shape]:
    """Module path -> weight shape."""
    width = numbers.width
    layers: dict[str, Shape] = {
        "pos_embed.proj": (width, LATENT, PATCH, PATCH),
        "context_embedder": (width, TEXT),
        "time_text_embed.timestep_embedder.linear_1": (width, FREQUENCIES),
        "time_text_embed.timestep_embedder.linear_2": (width, width),
        "time_text_embed.text_embedder.linear_1": (width, POOLED),
        "time_text_embed.text_embedder.linear_2": (width, width),
        "norm_out.linear": (2 * width, width),
        "proj_out": (PATCH * PATCH * LATENT, width),
    }
    for i in range(numbers.blocks):
        layers |= _block(f"transformer_blocks.{i}", width, i < numbers.dual, i == numbers.blocks - 1)
    return layers


def _block(block: str, width: int, dual: bool, last: bool) -> dict[str, Shape]:
    """A joint block; the last one has no text stream after its attention."""
    square = (width, width)
    names = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
    names += ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"] + ([] if last else ["attn.to_add_out"])
    names += ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"] if dual else []
    layers: dict[str, Shape] = {f"{block}.{name}": square for name in names}
    for stream in ("ff",) if last else ("ff", "ff_context"):
        layers |= {f"{block}.{stream}.net.0.proj": (4 * width, width), f"{block}.{stream}.net.2": (width, 4 * width)}
    layers[f"{block}.norm1.linear"] = ((9 if dual else 6) * width, width)
    layers[f"{block}.norm1_context.linear"] = ((2 if last else 6) * width, width)
    return layers
