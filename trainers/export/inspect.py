"""What an adapter file is: family, ranks, alphas, metadata, whether its hash is true, and which UIs load it."""

from collections import Counter
from pathlib import Path
from typing import Any

from trainers.adapters.adapter_file import AdapterFile, module_shapes, read_adapter, stray_keys
from trainers.export.hashes import hash_of_file
from trainers.export.verify import UiVerdict, text_width, verdicts
from trainers.families.base import Components
from trainers.families.detect import FAMILY_LABELS, identify

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
    "lora_darkroom.version",
)
WIDTHS = {768: "sd15", 1024: "sd2", 1280: "sdxl", 2048: "sdxl"}  # input of attn2 to_k
FEW = 5  # unmatched keys shown per UI


def inspect(path: Path, components: Components | None = None) -> dict[str, Any]:
    """Facts read from the tensors; metadata is shown, never trusted. UserError when it is no adapter file.

    `components`: the base to check the layers against; without it, Stable Diffusion 1.x in its usual size.
    """
    file = read_adapter(path)
    layers = file.layers
    stray = stray_keys(file.tensors, layers) if file.type == "LoRA" else []
    shapes = module_shapes(components) if components else None
    judged = verdicts(file.tensors, file.metadata, shapes)
    facts = {
        "file": str(path),
        "type": f"{file.type}, {_layout(file)} layout",
        "family": _family(file),
        "rank": _counts(layer.rank for layer in layers.values()),
        "alpha": _counts(layer.alpha for layer in layers.values()) if _has_alpha(file) else "none: scale 1",
        "dtype": _one(_counts(str(t.dtype).removeprefix("torch.") for t in file.tensors.values())),
        "modules": dict(Counter("text encoder" if _is_text(name) else "denoiser" for name in layers)),
        "hash": _hash(file),
        "metadata": {key: file.metadata[key] for key in SHOWN if file.metadata.get(key, "None") not in ("None", "")},
        "interfaces": {verdict.ui: _said(verdict) for verdict in judged} or "not known for this family",
    }
    unmatched = {v.ui: list(v.unmatched[:FEW]) for v in judged if v.unmatched}
    return facts | ({"unknown keys": stray} if stray else {}) | ({"unmatched keys": unmatched} if unmatched else {})


def _said(verdict: UiVerdict) -> str:
    """`loads`, `loads in part: ...` or `does not load: ...`."""
    head = {"whole": "loads", "partly": "loads in part", "no": "does not load"}[verdict.loads]
    count = f"{len(verdict.unmatched)} keys unmatched" if verdict.loads == "partly" and verdict.unmatched else ""
    reasons = "; ".join(part for part in (count, verdict.why) if part)
    return f"{head}: {reasons}" if reasons else head


def _family(file: AdapterFile) -> str:
    width = text_width(file.layers)
    family = WIDTHS.get(width, "") if width else identify(file.path).family
    if family:
        return FAMILY_LABELS.get(family, family)
    return f"a Stable Diffusion UNet of its own size (text width {width})" if width else "not known"


def _layout(file: AdapterFile) -> str:
    names = [*file.layers, *file.tensors]
    if any(name.startswith("base_model.model.") for name in names):
        return "peft"
    return "kohya" if any(name.startswith(("lora_", "lycoris_")) for name in names) else "diffusers"


def _hash(file: AdapterFile) -> str:
    stored = file.metadata.get("sshs_model_hash")
    if stored is None:
        return "missing"
    return "true" if stored == hash_of_file(file.path) else "FALSE: the file was changed after it was written"


def _has_alpha(file: AdapterFile) -> bool:
    return any(key.endswith(".alpha") for key in file.tensors) or "lora_adapter_metadata" in file.metadata


def _is_text(name: str) -> bool:
    return name.startswith(("lora_te", "text_encoder"))


def _counts(values: object) -> dict:
    return dict(Counter(values).most_common())


def _one(counts: dict) -> object:
    return next(iter(counts)) if len(counts) == 1 else counts
