"""The adapted modules of a file, told from its keys and shapes alone: names, types, ranks.

Sources of the endings: kohya-ss/sd-scripts, peft, diffusers (also before 0.22), and LyCORIS
(https://github.com/KohakuBlueleaf/LyCORIS, lycoris/modules).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.adapters.adapter_file import OTHER_TYPES

Shape = tuple[int, ...]

PAIRS = {  # how the two matrices of a plain product are called: name of the way -> endings of down and up
    "lora_down": (".lora_down.weight", ".lora_up.weight"),
    "lora_A": (".lora_A.weight", ".lora_B.weight"),
    "lora_A.default": (".lora_A.default.weight", ".lora_B.default.weight"),
    "lora_linear_layer": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "lora.down": (".lora.down.weight", ".lora.up.weight"),
    "_lora.down": (".down.weight", ".up.weight"),  # the old processors: the module's name ends in _lora
}
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight")
LYCORIS_PARTS = (
    *("alpha", "dora_scale", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2"),
    *("oft_blocks", "oft_diag", "rescale", "on_input", "diff", "diff_b", "w_norm", "b_norm", "scalar"),
)
TUCKER = OTHER_TYPES[".lora_mid.weight"]
TYPES = {  # a part that tells the type, the most telling first
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "on_input": "IA3",
    "a1": "GLoRA",
    "mid": TUCKER,
    "dora_scale": "DoRA",
    "magnitude": "DoRA",
    "down": "LoRA",
    "diff": "full difference",
    "diff_b": "full difference",
    "w_norm": "norm difference",
}
ENDINGS = {  # what a key ends in -> (part, way of naming the pair); longer ones are tried first
    **{end: (part, way) for way, ends in PAIRS.items() for part, end in zip(("down", "up"), ends, strict=True)},
    **{end: ("magnitude", "") for end in MAGNITUDES},
    **{f".{part}": (part, "") for part in LYCORIS_PARTS},
    **{f".{part}.weight": (part, "") for part in ("a1", "a2", "b1", "b2")},
    ".lora_mid.weight": ("mid", ""),
    ".weight": ("ia3", ""),  # beside `on_input` only
}
_BY_LENGTH = sorted(ENDINGS, key=len, reverse=True)
BUNDLE = "bundle_emb."  # textual inversions that OneTrainer puts into the file
REMNANTS = ("_orig_mod.", "_orig_mod_", ".default")  # of torch.compile and of peft's adapter name


@dataclass(frozen=True)
class Module:
    """One adapted module: its name as the file spells it, and for each of its parts the key and the shape."""

    name: str
    way: str  # a key of PAIRS, or empty
    keys: dict[str, str] = field(default_factory=dict)  # part -> key
    shapes: dict[str, Shape] = field(default_factory=dict)  # part -> shape

    @property
    def type(self) -> str:
        found = next((kind for part, kind in TYPES.items() if part in self.keys), "")
        return "BOFT" if found == "OFT" and len(self.shapes.get("oft_blocks", ())) == 4 else found

    @property
    def rank(self) -> int | None:
        """Rank of the (first) low-rank product; None where there is none."""
        found = next((self.shapes[part] for part in LOW_RANK if part in self.shapes), ())
        return found[0] if found else None

    @property
    def sizes(self) -> tuple[int, int] | None:
        """(outputs, inputs or input channels) of the weight it changes, where the shapes tell."""
        shapes = self.shapes
        if "down" in shapes and "up" in shapes and min(len(shapes["down"]), len(shapes["up"])) > 1:
            return shapes["up"][0], shapes["down"][1]
        if min(len(shapes.get(f"hada_w1_{side}", ())) for side in "ab") > 1:
            return shapes["hada_w1_a"]["hada_t1" in shapes], shapes["hada_w1_b"][1]
        if self.type == "LoKr":
            return self._kronecker()
        return (shapes["diff"][0], shapes["diff"][1]) if len(shapes.get("diff", ())) > 1 else None

    def fits(self, shape: Shape, exact: bool = False) -> bool:
        """Whether it can be added to a weight of that shape; `exact`: with no reshaping of 1x1 convolutions."""
        if self.type not in ("LoRA", "DoRA"):
            return self.sizes is None or self._covers(shape)
        down, up = self.shapes.get("down", ()), self.shapes.get("up", ())
        if len(down) < 2 or len(up) < 2:
            return False
        wanted_down, wanted_up = (down[0], *shape[1:]), (shape[0], down[0], *(1 for _ in shape[2:]))
        if exact:
            return down == wanted_down and up == wanted_up
        same = up[:2] == wanted_up[:2] and down[1] == shape[1]
        return same and math.prod(down) == math.prod(wanted_down) and math.prod(up) == math.prod(wanted_up)

    def _covers(self, shape: Shape) -> bool:
        return self.sizes[0] == shape[0] and self.sizes[1] in (shape[1], math.prod(shape[1:]))

    def _kronecker(self) -> tuple[int, int] | None:
        found = []
        for axis, sides in ((0, ("_a", "")), (1, ("_b", ""))):
            factors = [next((self.shapes[f"{w}{s}"] for s in sides if f"{w}{s}" in self.shapes), ()) for w in KRONECKER]
            if any(len(factor) <= axis for factor in factors):
                return None
            found.append(factors[0][axis] * factors[1][axis])
        return found[0], found[1]


KRONECKER = ("lokr_w1", "lokr_w2")
LOW_RANK = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2")  # parts whose rows are the rank


def read_modules(shapes: Mapping[str, Shape]) -> tuple[dict[str, Module], list[str]]:
    """(modules by name, keys that belong to none)."""
    modules: dict[str, Module] = {}
    for key, shape in shapes.items():
        ending = None if key.startswith(BUNDLE) else next((end for end in _BY_LENGTH if key.endswith(end)), None)
        if ending is None:
            continue
        name, (part, way) = key.removesuffix(ending), ENDINGS[ending]
        module = modules.setdefault(name, Module(name, way))
        if way and not module.way:
            modules[name] = module = Module(name, way, module.keys, module.shapes)
        module.keys[part], module.shapes[part] = key, shape
    whole = {name: module for name, module in modules.items() if _whole(module)}
    used = {key for module in whole.values() for key in module.keys.values()}
    return whole, sorted(shapes.keys() - used)


def clean(name: str) -> str:
    """A module's name without what torch.compile and peft leave in it."""
    for remnant in REMNANTS:
        name = name.replace(remnant, "")
    return name


def _whole(module: Module) -> bool:
    """A lone alpha, or one matrix of two, is no adapted module."""
    return bool(module.type) and ("down" in module.keys) == ("up" in module.keys)
