"""OneTrainer's parts of a model: which are trained, how fast, and where their numbers are kept.

Facts from OneTrainer (modules/util/config/TrainConfig.py, modules/util/checkpointing_util.py, modules/modelSetup), read
in 2026.
"""

from typing import Any

from trainers.importing import text_encoders
from trainers.importing.kohya_network import quantised
from trainers.importing.onetrainer_rules import DTYPES, FAMILIES, is_sd3
from trainers.importing.theirs import Theirs
from trainers.importing.values import Noted, NotNeeded, NotSupported, number, switch, text, whole_or

QUANTISED = {"FLOAT_8": "int8", "INT_8": "int8", "NFLOAT_4": "nf4"}
ENCODERS = ("text_encoder", "text_encoder_2")  # T5, SD 3's third, is not trained here


def rate(value: Any, theirs: Theirs) -> dict[str, Any]:
    """The rate of the parts that have none of their own."""
    found = {} if theirs.get("unet.learning_rate") is not None else {"optimizer.rate": number(value)}
    if any(theirs.get(f"{part}.learning_rate") is None for part in _encoders(theirs)):
        found |= {name: own for name, own in encoder(value, theirs).items() if name.startswith("optimizer.")}
    if not found:
        raise NotNeeded("The parts that train have rates of their own.")
    return found


def encoder(value: Any, theirs: Theirs) -> dict[str, Any]:
    """Text encoders train, and at the rate of the whole, unless a file says otherwise."""
    rates = []
    for part in _encoders(theirs):
        trained, own = theirs.get(f"{part}.train"), theirs.get(f"{part}.learning_rate", "learning_rate")
        is_left = trained is not None and not switch(trained)
        rates.append(0.0 if is_left else 3e-6 if own is None else number(own))
    found = text_encoders.settings(rates, whole_or(16, theirs.get("lora_rank")))
    if rates[0] == 0 < rates[-1] and theirs.get("text_encoder_2.train") is None:
        note = "OneTrainer trains the second text encoder where a file does not say."
        found["adapter.text_encoder"] = Noted(found["adapter.text_encoder"], note)
    return found


def second_encoder(value: Any, theirs: Theirs) -> dict[str, Any]:
    if len(_encoders(theirs)) == 1:
        raise NotNeeded("This base has one text encoder.")
    return encoder(value, theirs)


def _encoders(theirs: Theirs) -> tuple[str, ...]:
    """Their names for the text encoders of the base that can be trained."""
    family = FAMILIES.get(text(theirs.get("model_type") or ""))
    return ENCODERS if family in ("sdxl", "sd3") else ENCODERS[:1]


def text_stop(value: Any, theirs: Theirs) -> dict[str, Any]:
    unit = text(theirs.get("text_encoder.stop_training_after_unit") or "NEVER")
    steps = number(value) * (theirs.length.steps_per_epoch or 0) if unit == "EPOCH" else number(value)
    if unit == "NEVER":
        return {"adapter.text_stop": 1.0}
    if unit not in ("EPOCH", "STEP") or not steps or not theirs.length.steps:
        raise NotSupported("This cannot be turned into a share of the run.")
    return {"adapter.text_stop": round(min(steps / theirs.length.steps, 1.0), 6)}


def always_trained(value: Any) -> dict[str, Any]:
    if not switch(value):
        raise NotSupported("The denoiser is always trained.")
    return {}


def stored(value: Any, theirs: Theirs) -> dict[str, Any]:
    """How the denoiser's weights are kept."""
    name = text(value).upper()
    if name in (*DTYPES, "NONE"):
        return {}
    if name not in QUANTISED:
        raise NotSupported("Weights are kept as memory.precision or memory.quantize says.")
    return quantised(QUANTISED[name], "dora" if theirs.on("lora_decompose") else "lora")


def checkpointing(value: Any, theirs: Theirs) -> dict[str, Any]:
    """CPU_OFFLOADED, of earlier versions, moved what a transformer's blocks begin with, and nothing of a UNet."""
    name = text(value).upper()
    found = {"memory.checkpointing": name in ("ON", "CPU_OFFLOADED", "TRUE")}
    moved = theirs.get("enable_activation_offloading")
    if name == "CPU_OFFLOADED" and is_sd3(theirs):
        found["memory.offload"] = moved is None or switch(moved)
    return found


def streamed(value: Any) -> dict[str, Any]:
    """The share of the layers whose weights wait in host memory."""
    if number(value) <= 0:
        return {}
    return {"memory.stream": Noted("auto", "Of as few blocks as the memory budget asks for.")}
