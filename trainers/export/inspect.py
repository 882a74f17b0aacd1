"""What an adapter file is: family, ranks, alphas, blocks, metadata, what is wrong, and which UIs load it."""

from collections import Counter
from pathlib import Path
from typing import Any

from trainers.adapters.adapter import DENOISER
from trainers.adapters.adapter_file import WEIGHTS, adapter_files, module_shapes, read_layers
from trainers.export import told
from trainers.export.blocks import blocks
from trainers.export.contents import Contents, blank, read_contents
from trainers.export.embedded import fits_embedded
from trainers.export.hashes import hash_of_file
from trainers.export.known_names import DIFFUSERS, KOHYA, LYCORIS, OLD_DIFFUSERS, ONETRAINER, ORIGINAL, PEFT, SGM
from trainers.export.modules import BUNDLE, clean
from trainers.export.problems import NOTHING, Finding, Problem, findings
from trainers.export.verify import UiVerdict, is_text, judge
from trainers.export.weigh import Weights, weigh
from trainers.export.which_base import Base, base_of
from trainers.families.base import Components

SHOWN = (
    "ss_output_name",
    "ss_base_model_version",
    "ss_steps",
    "ss_epoch",
    "ss_num_train_images",
    "ss_resolution",
    "modelspec.title",
    "modelspec.architecture",
    "modelspec.prediction_type",
    "lora_darkroom.version",
)
EMBEDDED_SAID = (
    "made for the small base that comes with Darkroom, and loads there: in `darkroom sample`, and in diffusers with "
    "that base. A1111, ComfyUI and their like open no base this small; adapters that you train on a Stable "
    "Diffusion 1.5 model load in them all."
)
LAYOUTS = {
    KOHYA: "kohya layout",
    SGM: "kohya layout with the original block names",
    LYCORIS: "LyCORIS layout",
    ONETRAINER: "OneTrainer layout",
    ORIGINAL: "layout of the original code",
    DIFFUSERS: "diffusers layout",
    OLD_DIFFUSERS: "old diffusers layout",
    PEFT: "peft layout",
}
BEGINNINGS = {  # where no name is known
    "base_model.model.": PEFT,
    "lycoris_": LYCORIS,
    "lora_transformer_": ONETRAINER,
    "lora_": KOHYA,
    "diffusion_model.": ORIGINAL,
}
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
FEW = 5  # unmatched keys shown per UI
SCALE_ONE = "none: scale 1"


def inspect(path: Path, components: Components | None = None) -> dict[str, Any]:
    """Facts read from the tensors; metadata is shown, never trusted. UserError when it is no adapter file.

    `path` may be the folder that peft wrote; of one that holds several models, `parts` are the facts of each.
    `components`: the base to check the layers against; without it, those of the family in its usual size.
    """
    files = adapter_files(path)
    if len(files) > 1:
        return {"file": str(path), "parts": {name: inspect(file.parent, components) for name, file in files.items()}}
    path = next(iter(files.values())).parent if path.is_dir() else path
    contents = read_contents(path)
    base = base_of(contents)
    weights = weigh(path, contents)
    digest = hash_of_file(path / WEIGHTS if path.is_dir() else path)
    embedded = _types(contents) == "LoRA" and fits_embedded(read_layers(blank(contents.shapes)))
    judged = judge(contents, base, module_shapes(components) if components else None)
    wrong = findings(contents, base, weights, digest)
    return _facts(path, contents, base, weights, embedded) | {
        "hash": _hash(contents, digest),
        "metadata": {key: said for key in SHOWN if (said := told.value(contents.metadata, key))},
        "problems": [_problem(finding) for finding in wrong if not embedded or finding.problem in ALWAYS_SAID],
        "interfaces": EMBEDDED_SAID if embedded else _interfaces(contents, base, judged),
        **_keys(contents, [] if embedded else judged),
    }


ALWAYS_SAID = {Problem.NOT_A_NUMBER, Problem.ZEROS, Problem.HASH_WRONG, Problem.METADATA_BROKEN}


def _facts(path: Path, contents: Contents, base: Base, weights: Weights, embedded: bool) -> dict[str, Any]:
    modules = contents.modules
    dtypes = _counts(DTYPES.get(name, name.removeprefix("torch.")) for name in contents.dtypes.values())
    return {
        "file": str(path),
        "family": "Darkroom's small teaching base" if embedded else base.label,
        "type": f"{_types(contents)}, {LAYOUTS[layout(contents, base)]}",
        "made with": told.program(contents.metadata),
        "base model": told.base_model(contents.metadata),
        "trained": told.dates(contents.metadata),
        "words": told.words(contents.metadata),
        "rank": _counts(module.rank for module in modules.values() if module.rank),
        "alpha": _alpha(contents),
        "dtype": next(iter(dtypes)) if len(dtypes) == 1 else dtypes,
        "modules": dict(Counter("text encoder" if is_text(name) else "denoiser" for name in modules)),
        "blocks": blocks(contents, base, weights),
        "embeddings": contents.embeddings,
    }


def layout(contents: Contents, base: Base) -> str:
    """The style that most of the denoiser's names are in, or where there are none, of the text encoders'."""
    found = [layer for name in contents.modules if (layer := base.known.get(clean(name)))]
    styles = Counter(layer.style for layer in found if layer.places[0][0] == DENOISER and layer.style in LAYOUTS)
    styles = styles or Counter(layer.style for layer in found if layer.style in LAYOUTS)
    if styles and not any(name.startswith("base_model.model.") for name in contents.modules):
        return styles.most_common(1)[0][0]
    starts = (style for start, style in BEGINNINGS.items() if any(clean(n).startswith(start) for n in contents.modules))
    return next(starts, DIFFUSERS)


def _types(contents: Contents) -> str:
    return " and ".join(_counts(module.type for module in contents.modules.values()))


def _keys(contents: Contents, judged: list[UiVerdict]) -> dict[str, Any]:
    """Keys that belong to no module, and per UI those that it misses; all of them: the reason says why."""
    stray = [key for key in contents.stray if not key.startswith(BUNDLE)] or list(contents.stray)
    partly = [v for v in judged if 0 < len(v.unmatched) < len(contents.shapes)]
    unmatched = {v.ui: list(v.unmatched[:FEW]) for v in partly}
    return ({"unknown keys": stray} if stray else {}) | ({"unmatched keys": unmatched} if unmatched else {})


def _problem(finding: Finding) -> dict[str, Any]:
    return {"name": str(finding.problem), "says": finding.says, "concerns": len(finding.about)}


def _interfaces(contents: Contents, base: Base, judged: list[UiVerdict]) -> dict[str, str] | str:
    if layout(contents, base) == PEFT:
        said = {verdict.ui: _said(verdict) for verdict in judged}
        return {"peft": "loads: name its folder to PeftModel.from_pretrained"} | said
    return {verdict.ui: _said(verdict) for verdict in judged} or "not known for this family"


def _said(verdict: UiVerdict) -> str:
    """`loads`, `loads in part: ...` or `does not load: ...`."""
    head = {"whole": "loads", "partly": "loads in part", "no": "does not load"}[verdict.loads]
    amount = len(verdict.unmatched)
    count = f"{amount} key{'s' * (amount > 1)} unmatched" if verdict.loads == "partly" and amount else ""
    reasons = "; ".join(part for part in (count, verdict.why) if part)
    return f"{head}: {reasons}" if reasons else head


def _hash(contents: Contents, digest: str) -> str:
    stored = told.digest(contents.metadata, "sshs_model_hash")
    if not stored:
        return "none in the file"
    if stored == digest:
        return "fits the tensors' bytes: the weights are as they were written"
    if stored == NOTHING:
        return "FALSE: it is the hash of nothing, and should be that of the tensors' bytes"
    return "FALSE: the tensors' bytes have another, so the file was changed after it was written"


def _alpha(contents: Contents) -> dict | str:
    """Alphas and how many modules have them; modules without one are scaled by 1 everywhere."""
    found = _counts(
        SCALE_ONE if alpha is None else alpha
        for name, alpha in contents.alphas.items()
        if alpha is not None or contents.modules[name].rank
    )
    return SCALE_ONE if set(found) == {SCALE_ONE} else found


def _counts(values: object) -> dict:
    return dict(Counter(values).most_common())
