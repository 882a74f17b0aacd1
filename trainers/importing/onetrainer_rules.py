"""How OneTrainer's settings hang on one another: paths, units of time, noise, mixed losses.

Facts from OneTrainer (modules/util/create.py, modules/modelSetup), read in 2026.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from trainers.importing.kohya_network import adapter
from trainers.importing.onetrainer_lists import find
from trainers.importing.rows import Rule, family, only_where
from trainers.importing.theirs import Theirs
from trainers.importing.values import Noted, NotNeeded, NotSupported, number, plain, side, switch, text, whole

FAMILIES = {
    "STABLE_DIFFUSION_15": "sd15",
    "STABLE_DIFFUSION_20": "sd2",
    "STABLE_DIFFUSION_20_BASE": "sd2",
    "STABLE_DIFFUSION_21": "sd2",
    "STABLE_DIFFUSION_21_BASE": "sd2",
    "STABLE_DIFFUSION_XL_10_BASE": "sdxl",
    "STABLE_DIFFUSION_3": "sd3",
    "STABLE_DIFFUSION_35": "sd3",
}
OPTIMIZERS = {
    "ADAMW": "adamw",
    "ADAMW_8BIT": "adamw8bit",
    "ADAMW_ADV": "adamw",
    "PRODIGY": "prodigy",
    "PRODIGY_ADV": "prodigy",
    "PRODIGY_PLUS_SCHEDULE_FREE": "prodigy",
    "DADAPT_ADAM": "prodigy",
    "DADAPT_LION": "prodigy",
    "ADAFACTOR": "adafactor",
    "LION": "lion",
    "LION_8BIT": "lion",
    "LION_ADV": "lion",
    "SCHEDULE_FREE_ADAMW": "schedulefree",
}
SCHEDULES = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_HARD_RESTARTS": "cosine_restarts",
}
WEIGHTINGS = {"CONSTANT": "none", "MIN_SNR_GAMMA": "min_snr", "DEBIASED_ESTIMATION": "debiased", "P2": "p2"}
DTYPES = {"FLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
DEVICES = {"cpu": "cpu", "cuda": "auto", "mps": "auto", "xpu": "auto"}  # the machine's own, which may not be theirs
LAYERS = {"attn-only": "attention", "attn-mlp": "transformer", "full": "full", "blocks": "transformer"}


def choice(ours: str, names: Mapping[str, str], reason: str) -> Rule:
    """A setting with named values; `reason` says what happens to a name that we do not have."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if text(value) not in names:
            raise NotSupported(reason)
        return {ours: names[text(value)]}

    return Rule(decide)


def model_type(value: Any, theirs: Theirs) -> dict[str, Any]:
    if text(value) not in FAMILIES:
        raise NotSupported("Only Stable Diffusion models are trained here, and no inpainting models.")
    return family(FAMILIES[text(value)])


def method(value: Any, theirs: Theirs) -> dict[str, Any]:
    if text(value) != "LORA":
        raise NotSupported("Only LoRA adapters are trained here.")
    return {}


def path(ours: str) -> Rule:
    """A file or folder, whose name may begin at OneTrainer's own folder."""
    return Rule(lambda value, theirs: {ours: find(text(value), theirs.place)})


def peft(value: Any, theirs: Theirs) -> dict[str, Any]:
    kind = text(value).lower()
    return adapter("dora" if kind == "lora" and theirs.on("lora_decompose") else kind)


def dora(value: Any, theirs: Theirs) -> dict[str, Any]:
    if not switch(value) or text(theirs.get("peft_type") or "LORA") != "LORA":
        return {}
    return adapter("dora")


def name_of_file(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"saving.name": re.split(r"[/\\]", text(value))[-1].rpartition(".safetensors")[0] or text(value)}


def concept_file(value: Any, theirs: Theirs) -> dict[str, Any]:
    if any(key.startswith("concepts[") for key in theirs.values):
        raise NotNeeded("The concepts are in this file.")
    if theirs.folders:
        return theirs.folders
    raise NotSupported("There is no such file on this machine: name the pictures with --pictures.")


def resolution(value: Any, theirs: Theirs) -> dict[str, Any]:
    """Several, with commas between them, or one exact size such as 768x1024."""
    sizes = [side(part) for part in text(value).split(",")]
    largest = max(sizes, key=plain)
    if len(sizes) > 1:
        largest = Noted(plain(largest), "One resolution is trained: the largest of them.")
    return {"data.resolution": largest}


def epochs(value: Any, theirs: Theirs) -> dict[str, Any]:
    views = theirs.length.views_per_epoch
    if views is None:
        raise NotSupported("The pictures are not here to be counted: name their folder with --pictures.")
    return {"schedule.views": Noted(whole(value) * views, f"{views:,} views (repeats x pictures) in each epoch.")}


def warmup(value: Any, theirs: Theirs) -> dict[str, Any]:
    """Above 1 they are batches; from 0 to 1 a share of the run."""
    found = number(value)
    if found > 1:
        if not theirs.length.steps:
            raise NotSupported("The number of steps is not known, so this cannot be turned into a share of the run.")
        steps = found / max(theirs.count("gradient_accumulation_steps"), 1)
        found = round(min(steps / theirs.length.steps, 1), 6)
    return {"schedule.warmup": max(found, 0.0)}


def after(ours: str, unit_key: str) -> Rule:
    """An interval in the unit that another setting names."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        unit, count = text(theirs.get(unit_key) or "NEVER"), number(value)
        if unit == "STEP":
            return {ours: whole(value)}
        if unit == "NEVER" or count == 0:
            return {ours: 0}
        if unit == "EPOCH" and theirs.length.steps_per_epoch:
            return {ours: round(count * theirs.length.steps_per_epoch)}
        raise NotSupported(f"Intervals are in steps, not in {unit.lower()}s.")

    return Rule(decide)


def is_sd3(theirs: Theirs) -> bool:
    return FAMILIES.get(text(theirs.get("model_type") or "")) == "sd3"


def shift(value: Any, theirs: Theirs) -> dict[str, Any]:
    if is_sd3(theirs):
        return {"noise.shift": number(value)}
    if number(value) != 1:
        raise NotSupported("Only flow models have a shift here.")
    return {}


def only_flow(read: Callable[[Any], dict[str, Any]]) -> Rule:
    """A setting that counts for flow models alone."""
    return only_where(is_sd3, "Only for flow models.", read)


def only_logit_normal(read: Callable[[Any], dict[str, Any]]) -> Rule:
    """A setting of OneTrainer's logit-normal distribution, which draws normal(bias, weight + 1)."""

    def holds(theirs: Theirs) -> bool:
        return is_sd3(theirs) and text(theirs.get("timestep_distribution") or "") == "LOGIT_NORMAL"

    return only_where(holds, "Only for logit-normal noise levels of flow models.", read)


def distribution(value: Any, theirs: Theirs) -> dict[str, Any]:
    name = text(value)
    if is_sd3(theirs) and name in ("UNIFORM", "LOGIT_NORMAL"):
        return {"noise.density": name.lower()}
    if name != "UNIFORM":
        raise NotSupported("All noise levels are trained equally often, or on flow models logit-normal.")
    return {}


def layer_skip(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"model.clip_skip": whole(value) + 1}  # they count the layers left out


def strength(kind: str) -> Rule:
    """Their loss is a sum of kinds, each with a strength; ours is one kind."""
    kinds = {"l2": "mse_strength", "l1": "mae_strength", "smooth_l1": "huber_strength"}

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if not number(value):
            return {}
        others = {name: theirs.count(key) for name, key in kinds.items() if name != kind}
        if kind != "l2" and not theirs.values.get("mse_strength", 1):
            return {"loss.type": kind} if not any(others.values()) else _mixed()
        return _mixed() if kind != "l2" or any(others.values()) else {"loss.type": kind}

    return Rule(decide)


def _mixed() -> dict[str, Any]:
    raise NotSupported("Losses are not mixed: choose one as loss.type.")


def gamma(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"loss.snr_gamma": number(value)} if theirs.get("loss_weight_fn") == "MIN_SNR_GAMMA" else {}


def level(ours: str) -> Rule:
    """A share of the noise levels, 0 to 1."""
    return Rule(lambda value, theirs: {ours: min(int(1000 * number(value)) - (ours.endswith("max")), 999)})


def device(value: Any, theirs: Theirs) -> dict[str, Any]:
    name = text(value).partition(":")[0].lower()
    return {"memory.device": DEVICES.get(name, name)}


def precision(value: Any, theirs: Theirs) -> dict[str, Any]:
    """Half precisions say what the card could do: `auto` asks the card itself."""
    return {"memory.precision": "fp32" if text(value) in ("FLOAT_32", "TFLOAT_32") else "auto"}


def layers(value: Any, theirs: Theirs) -> dict[str, Any]:
    name = text(value)
    if name not in LAYERS:
        raise NotSupported("Set adapter.targets to a regular expression.")
    if LAYERS[name] == "full":
        return {"adapter.targets": Noted("full", "Convolutions too; attn-mlp is the usual choice.")}
    return {"adapter.targets": LAYERS[name]}
