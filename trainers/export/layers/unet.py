"""Every layer of a Stable Diffusion UNet that an adapter can name, with the shape of its weight, from a few numbers.

Paths are diffusers'. Source of the numbers: the configs of Stable Diffusion 1.5, 2.1 and XL base 1.0.
"""

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class UNetNumbers:
    """What tells one UNet from another; levels are counted from the finest."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]  # transformer blocks per attention of a level; 0: no attention there
    cross: int  # width of the text embedding
    linear: bool  # proj_in and proj_out are linear layers, not 1x1 convolutions
    added: int = 0  # width of the added conditioning (pooled text and sizes); 0: none
    resnets: int = 2  # per level on the way down, one more on the way up
    latent: int = 4


SD15 = UNetNumbers((320, 640, 1280, 1280), (1, 1, 1, 0), cross=768, linear=False)
SD2 = UNetNumbers((320, 640, 1280, 1280), (1, 1, 1, 0), cross=1024, linear=True)
SDXL = UNetNumbers((320, 640, 1280), (0, 2, 10), cross=2048, linear=True, added=2816)


def unet_shapes(numbers: UNetNumbers) -> dict[str, Shape]:
    """Module path -> weight shape, in no particular order."""
    channels, top = numbers.channels, len(numbers.channels) - 1
    time = 4 * channels[0]
    layers = _ends(numbers, time)
    width = channels[0]
    for i, out in enumerate(channels):
        block = f"down_blocks.{i}"
        for j in range(numbers.resnets):
            layers |= _resnet(f"{block}.resnets.{j}", width if j == 0 else out, out, time)
            layers |= _transformer(f"{block}.attentions.{j}", out, numbers.depths[i], numbers)
        if i < top:
            layers[f"{block}.downsamplers.0.conv"] = (out, out, 3, 3)
        width = out
    layers |= _transformer("mid_block.attentions.0", width, numbers.depths[-1] or 1, numbers)
    layers |= _resnet("mid_block.resnets.0", width, width, time) | _resnet("mid_block.resnets.1", width, width, time)
    for i in range(len(channels)):
        block, level = f"up_blocks.{i}", top - i
        out, below = channels[level], channels[max(level - 1, 0)]
        for j in range(numbers.resnets + 1):
            skip = below if j == numbers.resnets else out  # the last resnet meets the next finer level's features
            layers |= _resnet(f"{block}.resnets.{j}", (width if j == 0 else out) + skip, out, time)
            layers |= _transformer(f"{block}.attentions.{j}", out, numbers.depths[level], numbers)
        if level:
            layers[f"{block}.upsamplers.0.conv"] = (out, out, 3, 3)
        width = out
    return layers


def _ends(numbers: UNetNumbers, time: int) -> dict[str, Shape]:
    """First and last convolution, and the embeddings of time and of the added conditioning."""
    first = numbers.channels[0]
    layers: dict[str, Shape] = {
        "conv_in": (first, numbers.latent, 3, 3),
        "conv_out": (numbers.latent, first, 3, 3),
        "time_embedding.linear_1": (time, first),
        "time_embedding.linear_2": (time, time),
    }
    if numbers.added:
        layers |= {"add_embedding.linear_1": (time, numbers.added), "add_embedding.linear_2": (time, time)}
    return layers


def _resnet(path: str, width: int, out: int, time: int) -> dict[str, Shape]:
    layers: dict[str, Shape] = {
        f"{path}.conv1": (out, width, 3, 3),
        f"{path}.time_emb_proj": (out, time),
        f"{path}.conv2": (out, out, 3, 3),
    }
    return layers | ({f"{path}.conv_shortcut": (out, width, 1, 1)} if width != out else {})


def _transformer(path: str, width: int, depth: int, numbers: UNetNumbers) -> dict[str, Shape]:
    if depth == 0:
        return {}
    projection = (width, width) if numbers.linear else (width, width, 1, 1)
    layers: dict[str, Shape] = {f"{path}.proj_in": projection, f"{path}.proj_out": projection}
    for i in range(depth):
        block = f"{path}.transformer_blocks.{i}"
        for name, source in (("attn1", width), ("attn2", numbers.cross)):
            layers |= {f"{block}.{name}.to_q": (width, width), f"{block}.{name}.to_out.0": (width, width)}
            layers |= {f"{block}.{name}.to_k": (width, source), f"{block}.{name}.to_v": (width, source)}
        layers |= {f"{block}.ff.net.0.proj": (8 * width, width), f"{block}.ff.net.2": (width, 4 * width)}
    return layers
