"""What an adapter file is: family, ranks, alphas, metadata, whether its hash is true, and which UIs load it."""

from collections import Counter
from pathlib import Path
from typing import Any

from trainers.adapters.adapter_file import AdapterFile, module_shapes, read_adapter, stray_keys
from trainers.export.embedded import fits_embedded
from trainers.export.hashes import hash_of_file
from trainers.export.verify import UiVerdict, text_width, verdicts
from trainers.families.base import Components
from trainers.families.detect import FAMILY_LABELS, identify
from trainers.families.keys import CONTEXT_WIDTH

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
EMBEDDED_SAID = (
    "made for the small base that comes with Darkroom, and loads there: in `darkroom sample`, and in diffusers with "
    "that base. A1111, ComfyUI and their like open no base this small; adapters that you train on a Stable "
    "Diffusion 1.5 model load in them all."
)
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
    embedded = file.type == "LoRA" and fits_embedded(layers)
    facts = {
        "file": str(path),
        "type": f"{file.type}, {_layout(file)} layout",
        "family": "Darkroom's small teaching base" if embedded else _family(file),
        "rank": _counts(layer.rank for layer in layers.values()),
        "alpha": _alpha(file),
        "dtype": _one(_counts(str(t.dtype).removeprefix("torch.") for t in file.tensors.values())),
        "modules": dict(Counter("text encoder" if _is_text(name) else "denoiser" for name in layers)),
        "hash": _hash(file),
        "metadata": {key: file.metadata[key] for key in SHOWN if file.metadata.get(key, "None") not in ("None", "")},
        "interfaces": EMBEDDED_SAID if embedded else _interfaces(file, judged),
    }
    partly = [
        v for v in judged if not embedded and 0 < len(v.unmatched) < len(file.tensors)
    ]  # all: the reason says why
    unmatched = {v.ui: list(v.unmatched[:FEW]) for v in partly}
    return facts | ({"unknown keys": stray} if stray else {}) | ({"unmatched keys": unmatched} if unmatched else {})


def _interfaces(file: AdapterFile, judged: list[UiVerdict]) -> dict[str, str] | str:
    if _layout(file) == "peft":
        return {"peft": "loads: name its folder to PeftModel.from_pretrained"} | {v.ui: _said(v) for v in judged}
    return {verdict.ui: _said(verdict) for verdict in judged} or "not known for this family"


def _said(verdict: UiVerdict) -> str:
    """`loads`, `loads in part: ...` or `does not load: ...`."""
    head = {"whole": "loads", "partly": "loads in part", "no": "does not load"}[verdict.loads]
    amount = len(verdict.unmatched)
    count = f"{amount} key{'s' * (amount > 1)} unmatched" if verdict.loads == "partly" and amount else ""
    reasons = "; ".join(part for part in (count, verdict.why) if part)
    return f"{head}: {reasons}" if reasons else head


def _family(file: AdapterFile) -> str:
    width = text_width(file.layers)
    family = CONTEXT_WIDTH.get(width, "") if width else identify(file.path).family
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
        return "none in the file"
    same = stored == hash_of_file(file.path)
    return "fits: the weights are as they were written" if same else "FALSE: the file was changed after it was written"


def _alpha(file: AdapterFile) -> dict | str:
    """Alphas and how many layers have them; layers without one are scaled by 1 everywhere."""
    own = {name for name in file.layers if f"{name}.alpha" in file.tensors}
    if "lora_adapter_metadata" in file.metadata or file.peft_config:
        own = set(file.layers)
    elif not own:
        return "none: scale 1"
    return _counts(layer.alpha if name in own else "none: scale 1" for name, layer in file.layers.items())


def _is_text(name: str) -> bool:
    path = name.removeprefix("base_model.model.")  # peft names the model by its folder only: CLIP's paths tell it
    return path.startswith(("lora_te", "text_encoder", "text_model.", "encoder."))


def _counts(values: object) -> dict:
    return dict(Counter(values).most_common())


def _one(counts: dict) -> object:
    return next(iter(counts)) if len(counts) == 1 else counts
