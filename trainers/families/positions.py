"""Stable Diffusion 3's table of positions: of one made for far larger pictures than a run has, the middle is enough.

diffusers adds the middle of the table to latents of any size. That of Stable Diffusion 3.5 Medium has 384 x 384 rows,
0.42 GB in bf16, and pictures of 1024 pixels use 64 x 64 of them.
"""

from torch import Tensor

from trainers.families.base import Components
from trainers.libraries import diffusers

TABLE = "pos_embed"
FULL_NAME = f"{TABLE}.{TABLE}"  # in a denoiser


def keep_middle(components: Components, pixels: int) -> None:
    """Leave only what pictures of up to `pixels` a side need; the predictions stay the same to the bit.

    Of a denoiser whose weights are away, no more than that is read. One without such a table stays as it is.
    """
    denoiser = components.denoiser
    embed = getattr(denoiser, TABLE, None)
    if not isinstance(embed, diffusers.models.embeddings.PatchEmbed) or embed.pos_embed_max_size is None:
        return
    whole = embed.pos_embed_max_size
    wanted = pixels // components.latent.factor // embed.patch_size
    side = min(whole, wanted + (whole - wanted) % 2)  # as much goes on the right as on the left
    if side >= whole:
        return

    def middle(table: Tensor) -> Tensor:
        """[1, whole * whole, width] -> [1, side * side, width]."""
        start = (whole - side) // 2
        rows = table.reshape(whole, whole, -1)[start : start + side, start : start + side]
        return rows.reshape(1, side * side, -1).clone()

    embed.register_buffer(TABLE, middle(embed.pos_embed), persistent=True)
    embed.pos_embed_max_size = side
    if source := getattr(denoiser, "source", None):
        source.shorten(FULL_NAME, tuple(embed.pos_embed.shape), middle)
