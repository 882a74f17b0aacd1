"""Whether an adapter belongs to the embedded base, told by the shapes in that base's files; no model is loaded."""

from collections.abc import Mapping

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.adapter_file import reshaped
from trainers.adapters.names import lookup
from trainers.adapters.weights import LoraWeights
from trainers.errors import UserError
from trainers.families.headers import read_shapes
from trainers.families.locate import embedded_base

FILES = {DENOISER: "unet/diffusion_pytorch_model.safetensors", "text_0": "text_encoder/model.safetensors"}


def fits_embedded(layers: Mapping[str, LoraWeights]) -> bool:
    """Whether every layer is one of the embedded base's, in its size; False where that base is damaged."""
    try:
        shapes = _shapes()
    except UserError:
        return False
    places = lookup(shapes)
    return bool(layers) and all(
        name in places and reshaped(layer, shapes[places[name]]) is not None for name, layer in layers.items()
    )


def _shapes() -> dict[Place, tuple[int, ...]]:
    """Every weight of a layer -> its shape."""
    folder = embedded_base()
    return {
        (part, name.removesuffix(".weight")): shape
        for part, file in FILES.items()
        for name, shape in read_shapes(folder / file)[0].items()
        if name.endswith(".weight") and len(shape) > 1
    }
