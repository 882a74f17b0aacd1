"""Files that are not what their names say, made without torch."""

import json
from pathlib import Path

UNET_FILE = "diffusion_pytorch_model.safetensors"
LORA = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
SDXL = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
}
FLUX = {"double_blocks.0.img_attn.qkv.weight": (96, 32)}


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of zeros and a last one in these shapes, without torch; large ones take no room on most disks."""
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
        if place:  # a large file that ends in zeros is half a download
            file.seek(-1, 2)
            file.write(b"\1")
    return path


def text_as_model(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_text("Dear diary, this is no model.\n", encoding="utf-8")
    return path
