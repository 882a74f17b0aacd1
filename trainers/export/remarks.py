"""What is to be known of a file that a UI loads: hidden in a list, another scale, DoRA reckoned in another way."""

from collections import Counter

from trainers.export.contents import Contents
from trainers.export.ui_rules import UiRules
from trainers.export.which_base import Base, text_width

A1111_VERSION = "ss_base_model_version"
HIDES = "while a model of this family is loaded"


def remarks(rules: UiRules, contents: Contents, base: Base, read: list[str], checked: bool) -> list[str]:
    """Sentences without their full stop; `read` are the modules that the UI uses."""
    found = [_hidden(rules, contents, base), _unknown_base(rules, contents), _scale(rules, contents, read)]
    found += [
        _dora(rules, contents),
        "" if checked else "with the base it was trained on, whose layers were not looked at",
    ]
    return [sentence for sentence in found if sentence]


def hidden_in_a1111(contents: Contents, base: Base) -> bool:
    """A1111 tells the family from metadata alone, and any metadata but SDXL's and 2.x's means 1.x to it."""
    metadata = contents.metadata
    if not metadata:
        return False
    xl = metadata.get(A1111_VERSION, "").startswith("sdxl_")
    taken = "sdxl" if xl else "sd2" if metadata.get("ss_v2") == "True" else "sd15"
    return taken != base.family


def unscaled(contents: Contents) -> list[str]:
    """Modules whose alpha nothing tells, where the layout has one: diffusers' own has none, and means scale 1."""
    return [
        name
        for name, module in contents.modules.items()
        if contents.alphas[name] is None and module.rank and module.way in ("", "lora_down")
    ]


def _hidden(rules: UiRules, contents: Contents, base: Base) -> str:
    if rules.ui != "A1111" or not hidden_in_a1111(contents, base):
        return ""
    said = contents.metadata.get(A1111_VERSION)
    missing = "its metadata names another family" if said or contents.metadata.get("ss_v2") == "True" else ""
    missing = missing or f"its metadata lacks {'ss_v2' if base.family == 'sd2' else A1111_VERSION}"
    return f"{missing}, so the list of adapters may hide it {HIDES}"


def _unknown_base(rules: UiRules, contents: Contents) -> str:
    alone = rules.ui == "InvokeAI" and text_width(contents.modules) is None
    return "older versions cannot tell its base, since it has no cross-attention" if alone else ""


def _scale(rules: UiRules, contents: Contents, read: list[str]) -> str:
    """A scale that differs from what the file means."""
    if contents.in_config and rules.ui != "diffusers":
        off = [
            name for name in read if contents.alphas.get(name) not in (None, float(contents.modules[name].rank or 0))
        ]
        return f"it ignores the alpha in the file's header, and scales {len(off)} modules by 1 instead" if off else ""
    missing = [name for name in unscaled(contents) if name in read]
    told = Counter(alpha for name in read if (alpha := contents.alphas[name]) is not None)
    if not missing:
        return ""
    if rules.ui == "diffusers" and told and not contents.in_config:
        return f"it gives the {len(missing)} modules without alpha the others' alpha, {told.most_common(1)[0][0]:g}"
    return f"it scales the {len(missing)} modules without alpha by 1"


def _dora(rules: UiRules, contents: Contents) -> str:
    scales = [module.shapes["dora_scale"] for module in contents.modules.values() if "dora_scale" in module.shapes]
    outputs = any(len(shape) > 1 and shape[0] > 1 for shape in scales)
    if not outputs:
        return ""
    if rules.ui in ("ComfyUI", "Forge"):
        return (
            "it divides DoRA's magnitudes by the norms of the base's rows, not of the merged ones: a slight difference"
        )
    if rules.ui == "InvokeAI":
        return "it takes DoRA's norms along the inputs, while this file has them per output"
    return ""
