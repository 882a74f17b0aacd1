"""What an adapter file is: family, ranks, alphas, metadata, and whether its hash is true."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from trainers.adapters.adapter_file import read_adapter
from trainers.export.metadata import tensor_bytes

SHOWN = (
    "ss_output_name",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_steps",
    "ss_epoch",
    "ss_num_train_images",
    "ss_resolution",
    "modelspec.trigger_phrase",
    "modelspec.prediction_type",
)
WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}  # input of attn2 to_k


def inspect(path: Path) -> dict[str, Any]:
    """Facts read from the tensors; metadata is shown, never trusted. UserError when it is no adapter file."""
    file = read_adapter(path)
    downs = {name: file.tensors[f"{name}.lora_down.weight"] for name in file.modules}
    width = next((d.shape[1] for n, d in downs.items() if n.endswith("attn2_to_k")), None)
    parts = Counter("denoiser" if name.startswith("lora_unet") else "text encoder" for name in file.modules)
    alphas = Counter(float(file.tensors[f"{n}.alpha"]) for n in file.modules if f"{n}.alpha" in file.tensors)
    stored = file.metadata.get("sshs_model_hash")
    true = hashlib.sha256(tensor_bytes(path.read_bytes())).hexdigest()
    return {
        "file": str(path),
        "type": "LoRA, kohya layout",
        "family": WIDTHS.get(width, f"a Stable Diffusion UNet of its own size (text width {width})"),
        "rank": dict(Counter(int(d.shape[0]) for d in downs.values())),
        "alpha": dict(alphas) or "none: scale 1",
        "dtype": str(next(iter(downs.values())).dtype).removeprefix("torch."),
        "modules": dict(parts),
        "hash": "true"
        if stored == true
        else "missing"
        if stored is None
        else "FALSE: the file was changed after it was written",
        "metadata": {key: file.metadata[key] for key in SHOWN if key in file.metadata},
    }
