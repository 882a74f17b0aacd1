"""Every layer of a text encoder that an adapter can name, with the shape of its weight, from a few numbers.

Paths are those of transformers 5: CLIPTextModel has no `text_model` level, CLIPTextModelWithProjection has it.
Source of the numbers: the configs of CLIP ViT-L/14, OpenCLIP ViT-H/14 (its last layer cut off, as Stable Diffusion 2
has it), OpenCLIP ViT-bigG/14 and T5 v1.1 XXL.
"""

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ClipNumbers:
    width: int
    layers: int
    projected: bool = False  # a model "with projection"

    @property
    def inner(self) -> int:
        return 4 * self.width


CLIP_L = ClipNumbers(768, 12)
CLIP_H = ClipNumbers(1024, 23)
CLIP_L_PROJECTED = ClipNumbers(768, 12, projected=True)
CLIP_G = ClipNumbers(1280, 32, projected=True)
T5_WIDTH, T5_INNER, T5_LAYERS = 4096, 10240, 24


def clip_shapes(numbers: ClipNumbers) -> dict[str, Shape]:
    """Module path -> weight shape."""
    width, inner = numbers.width, numbers.inner
    level = "text_model." if numbers.projected else ""
    layers: dict[str, Shape] = {"text_projection": (width, width)} if numbers.projected else {}
    for i in range(numbers.layers):
        block = f"{level}encoder.layers.{i}"
        layers |= {f"{block}.self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        layers |= {f"{block}.mlp.fc1": (inner, width), f"{block}.mlp.fc2": (width, inner)}
    return layers


def t5_shapes() -> dict[str, Shape]:
    """Module path -> weight shape of T5 v1.1 XXL's encoder."""
    layers: dict[str, Shape] = {}
    for i in range(T5_LAYERS):
        block = f"encoder.block.{i}.layer"
        layers |= {f"{block}.0.SelfAttention.{name}": (T5_WIDTH, T5_WIDTH) for name in "qkvo"}
        layers |= {f"{block}.1.DenseReluDense.{name}": (T5_INNER, T5_WIDTH) for name in ("wi_0", "wi_1")}
        layers[f"{block}.1.DenseReluDense.wo"] = (T5_WIDTH, T5_INNER)
    return layers
