"""How kohya's settings hang on one another: base, pictures, optimizer, schedule, noise, loss, previews.

Facts from kohya_ss (kohya_gui/lora_gui.py) and sd-scripts (train_network.py, library/train_util.py), read in 2026.
"""

from collections.abc import Callable
from typing import Any

from trainers.importing import prompts
from trainers.importing.kohya_family import is_sd3
from trainers.importing.rows import Rule, only_where
from trainers.importing.theirs import Theirs, resolve
from trainers.importing.values import Noted, NotNeeded, NotSupported, number, plain, side, switch, text, whole

OPTIMIZERS = {
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "pagedadamw": "adamw",
    "pagedadamw8bit": "adamw8bit",
    "prodigy": "prodigy",
    "adafactor": "adafactor",
    "lion": "lion",
    "lion8bit": "lion",
    "pagedlion8bit": "lion",
    "adamwschedulefree": "schedulefree",
}
DECAYS = {"adamw": 0.01, "adamw8bit": 0.01}  # what the libraries use where nothing is said; 0 for the others
SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts",
    "polynomial": "polynomial",
}


def base(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"model.base": resolve(text(value), theirs.place)}


def vae(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"model.vae": resolve(text(value), theirs.place)}


def pictures(value: Any, theirs: Theirs) -> dict[str, Any]:
    if theirs.has_data_set:
        raise NotNeeded("The data set file names the pictures.")
    return theirs.folders


def data_set(value: Any, theirs: Theirs) -> dict[str, Any]:
    if theirs.folders:
        raise NotNeeded("Its settings are listed below.")
    raise NotSupported("It is not on this machine, or names no pictures.")


def resolution(value: Any, theirs: Theirs) -> dict[str, Any]:
    found = side(value)
    if isinstance(found, Noted) and not theirs.on("enable_bucket"):
        found = Noted(found.value, "Without buckets, pictures are cropped to a square of the same area.")
    return {"data.resolution": found}


def prediction(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"model.prediction": "v"} if switch(value) else {}


def precision(value: Any, theirs: Theirs) -> dict[str, Any]:
    """fp16 and bf16 say what the card could do, not what the run should be: `auto` asks the card itself."""
    match text(value).lower():
        case "no":
            return {"memory.precision": "fp32"}
        case "fp16" | "bf16":
            return {"memory.precision": "auto"}
    raise NotSupported("The half precision that the card does best is used.")


def swapped(value: Any, theirs: Theirs) -> dict[str, Any]:
    if whole(value) <= 0:
        raise NotNeeded("Blocks are streamed where the memory budget asks for it.")
    return {"memory.stream": Noted("auto", "Of as few blocks as the memory budget asks for.")}


def attention(value: Any, theirs: Theirs) -> dict[str, Any]:
    wanted = text(value).lower() == "xformers" or (text(value).lower() != "sdpa" and switch_or_false(value))
    return {"memory.attention": "xformers" if wanted else "sdpa"}


def switch_or_false(value: Any) -> bool:
    try:
        return switch(value)
    except NotSupported:
        return False


def seed(value: Any, theirs: Theirs) -> dict[str, Any]:
    if theirs.gui and whole(value) == 0:
        raise NotNeeded("0 draws a new seed for each run there; here every run has a fixed one.")
    return {"seed": whole(value)}


# Optimizer and schedule


def optimizer(value: Any, theirs: Theirs) -> dict[str, Any]:
    name = text(value).rpartition(".")[2].lower()
    if name.startswith("dadapt"):
        return {"optimizer.type": Noted("prodigy", "D-Adaptation's successor; it too finds its own rate.")}
    if name.startswith("prodigyplus"):
        return {"optimizer.type": Noted("prodigy", "Without its schedule-free part.")}
    if name not in OPTIMIZERS:
        raise NotSupported("There is no such optimizer here: AdamW is used.")
    ours = OPTIMIZERS[name]
    return {"optimizer.type": Noted(ours, f"As {ours}.") if ours != name and "lion" in name else ours}


def optimizer_of(theirs: Theirs) -> str:
    """Ours, by name; AdamW where theirs is none of them."""
    try:
        return plain(optimizer(theirs.get("optimizer_type", "optimizer") or "adamw", theirs)["optimizer.type"])
    except NotSupported:
        return "adamw"


def decay(theirs: Theirs) -> float:
    """The weight decay that the optimizer's library uses where optimizer_args name none."""
    return DECAYS.get(optimizer_of(theirs), 0.0)


def schedule(value: Any, theirs: Theirs) -> dict[str, Any]:
    if text(value) not in SCHEDULES:
        raise NotSupported("There is no such schedule here: the rate stays constant.")
    return {"schedule.type": SCHEDULES[text(value)]}


def cycles(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"schedule.cycles": max(whole(value), 1)}


# Noise and loss


def noise_offset(value: Any, theirs: Theirs) -> dict[str, Any]:
    if text(theirs.get("noise_offset_type") or "Original").lower() != "original":
        raise NotNeeded("noise_offset_type is another.")
    return {"noise.offset": number(value)}


def last_timestep(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"noise.timestep_max": max(whole(value) - 1, 0)}  # theirs is the first level that is not trained


def min_snr(value: Any, theirs: Theirs) -> dict[str, Any]:
    gamma = number(value)
    if gamma > 0:
        return {"loss.weighting": "min_snr", "loss.snr_gamma": gamma}
    return {} if theirs.on("debiased_estimation_loss") else {"loss.weighting": "none"}


def debiased(value: Any, theirs: Theirs) -> dict[str, Any]:
    if not switch(value):
        return {}
    if theirs.count("min_snr_gamma") > 0:
        raise NotSupported("One weighting at a time: min-SNR is used.")
    return {"loss.weighting": "debiased"}


def loss(value: Any, theirs: Theirs) -> dict[str, Any]:
    name = text(value)
    if name == "smooth_l1":  # 2 (sqrt(e² + c²) - c), which is our huber / c
        return {"loss.type": Noted("huber", "kohya's smooth_l1 is the pseudo-Huber loss divided by huber_c.")}
    return {"loss.type": name}


def huber_c(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"loss.huber_c": number(value)} if _is_huber(theirs) else {}


def huber_schedule(value: Any, theirs: Theirs) -> dict[str, Any]:
    if _is_huber(theirs) and text(value) != "constant":
        raise NotSupported("huber_c is the same at all noise levels.")
    return {}


def _is_huber(theirs: Theirs) -> bool:
    return str(theirs.get("loss_type")) in ("huber", "smooth_l1")


def multires(value: Any, theirs: Theirs) -> dict[str, Any]:
    if number(value) and text(theirs.get("noise_offset_type") or "Multires").lower() == "multires":
        raise NotSupported("Pyramid noise is not supported yet.")
    return {}


# Previews


def sample_prompts(value: Any, theirs: Theirs) -> dict[str, Any]:
    """The prompts themselves (kohya_ss), or the file that holds them (sd-scripts)."""
    found = prompts.from_setting(text(value), theirs.place)
    if found is None:
        raise NotSupported("There is no such file on this machine.")
    return prompts.settings(found)


def start(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"adapter.init_from": resolve(text(value), theirs.place)}


def only_sd3(read: Callable[[Any], dict[str, Any]]) -> Rule:
    """A setting that counts for Stable Diffusion 3 alone."""
    return only_where(is_sd3, "Only for SD3.", read)


def clip(ours: str) -> Rule:
    """The file of a text encoder, which Stable Diffusion 3 alone has beside the base."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        return only_sd3(lambda name: {ours: resolve(text(name), theirs.place)}).decide(value, theirs)

    return Rule(decide)


def density(value: Any) -> dict[str, Any]:
    scheme = text(value).lower()
    if scheme not in ("logit_normal", "uniform", "none"):
        raise NotSupported("Noise levels are drawn logit-normal or uniform (noise.density).")
    return {"noise.density": "logit_normal" if scheme == "logit_normal" else "uniform"}
