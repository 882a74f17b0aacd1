"""Every layer of Stable Diffusion 1.x that an adapter can name, with the shape of its weight, from structure rules.

What a UI matches a file against. Source: the configs of Stable Diffusion 1.5 and of CLIP ViT-L/14.
"""

from trainers.adapters.adapter import DENOISER, Place

Shape = tuple[int, ...]
CHANNELS = (320, 640, 1280, 1280)
ATTENTION = (True, True, True, False)  # per level, from the finest
CROSS = 768  # width of the text embedding
RESNETS = 2  # per level on the way down, one more on the way up
TEXT = {"width": 768, "inner": 3072, "layers": 12}


def sd15_shapes() -> dict[Place, Shape]:
    """(part, module path) -> weight shape."""
    unet = {(DENOISER, path): shape for path, shape in unet_shapes().items()}
    return unet | {("text_0", path): shape for path, shape in text_shapes(**TEXT).items()}


def unet_shapes(
    channels: tuple[int, ...] = CHANNELS,
    attention: tuple[bool, ...] = ATTENTION,
    cross: int = CROSS,
    resnets: int = RESNETS,
    latent: int = 4,
) -> dict[str, Shape]:
    """Layers of a UNet with that many channels, and attention or not, per level."""
    first, last, top = channels[0], channels[-1], len(channels) - 1
    time = 4 * first
    layers: dict[str, Shape] = {
        "conv_in": (first, latent, 3, 3),
        "conv_out": (latent, first, 3, 3),
        "time_embedding.linear_1": (time, first),
        "time_embedding.linear_2": (time, time),
    }
    width = first
    for i, out in enumerate(channels):
        block = f"down_blocks.{i}"
        for j in range(resnets):
            layers |= _resnet(f"{block}.resnets.{j}", width if j == 0 else out, out, time)
            layers |= _transformer(f"{block}.attentions.{j}", out, cross) if attention[i] else {}
        if i < top:
            layers[f"{block}.downsamplers.0.conv"] = (out, out, 3, 3)
        width = out
    layers |= _transformer("mid_block.attentions.0", last, cross)
    layers |= _resnet("mid_block.resnets.0", last, last, time) | _resnet("mid_block.resnets.1", last, last, time)
    for i in range(len(channels)):
        block, level = f"up_blocks.{i}", top - i
        out, below = channels[level], channels[max(level - 1, 0)]
        for j in range(resnets + 1):
            skip = below if j == resnets else out  # the last resnet meets the features of the next finer level
            layers |= _resnet(f"{block}.resnets.{j}", (width if j == 0 else out) + skip, out, time)
            layers |= _transformer(f"{block}.attentions.{j}", out, cross) if attention[level] else {}
        if level:
            layers[f"{block}.upsamplers.0.conv"] = (out, out, 3, 3)
        width = out
    return layers


def text_shapes(width: int, inner: int, layers: int) -> dict[str, Shape]:
    """Layers of a CLIP text encoder, in transformers 5's paths."""
    result: dict[str, Shape] = {}
    for i in range(layers):
        block = f"encoder.layers.{i}"
        result |= {f"{block}.self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        result |= {f"{block}.mlp.fc1": (inner, width), f"{block}.mlp.fc2": (width, inner)}
    return result


def _resnet(path: str, width: int, out: int, time: int) -> dict[str, Shape]:
    layers: dict[str, Shape] = {
        f"{path}.conv1": (out, width, 3, 3),
        f"{path}.time_emb_proj": (out, time),
        f"{path}.conv2": (out, out, 3, 3),
    }
    return layers | ({f"{path}.conv_shortcut": (out, width, 1, 1)} if width != out else {})


def _transformer(path: str, width: int, cross: int) -> dict[str, Shape]:
    block = f"{path}.transformer_blocks.0"
    layers: dict[str, Shape] = {f"{path}.proj_in": (width, width, 1, 1), f"{path}.proj_out": (width, width, 1, 1)}
    for name, source in (("attn1", width), ("attn2", cross)):
        layers |= {f"{block}.{name}.to_q": (width, width), f"{block}.{name}.to_out.0": (width, width)}
        layers |= {f"{block}.{name}.to_k": (width, source), f"{block}.{name}.to_v": (width, source)}
    return layers | {f"{block}.ff.net.0.proj": (8 * width, width), f"{block}.ff.net.2": (width, 4 * width)}
