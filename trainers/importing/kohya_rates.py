"""kohya's learning rates: one for all, one for the denoiser, one or several for the text encoders.

Facts from kohya_ss (kohya_gui/lora_gui.py) and sd-scripts (train_network.py, networks/lora_sd3.py), read in 2026.
"""

from typing import Any

from trainers.importing import text_encoders
from trainers.importing.kohya_family import family_of, is_sd3
from trainers.importing.kohya_network import trains_unet_only
from trainers.importing.kohya_rules import optimizer_of
from trainers.importing.theirs import Theirs
from trainers.importing.values import (
    Noted,
    NotNeeded,
    NotSupported,
    first_number,
    numbers,
    percent,
    switch,
    whole_or,
)


def rate(value: Any, theirs: Theirs) -> dict[str, Any]:
    """learning_rate stands for the two others where they are not given; 0 counts as not given in kohya_ss."""
    found: dict[str, Any] = {}
    if not theirs.count("unet_lr"):
        found["optimizer.rate"] = _for_prodigy(first_number(value), theirs)
    if _text_rates(theirs) is None:
        found["optimizer.text_rate"] = first_number(value)
    if not found:
        raise NotNeeded("unet_lr and text_encoder_lr decide.")
    return found


def unet_rate(value: Any, theirs: Theirs) -> dict[str, Any]:
    if first_number(value) > 0:
        return {"optimizer.rate": _for_prodigy(first_number(value), theirs)}
    if theirs.count("learning_rate") > 0 and not theirs.get("text_encoder_lr"):
        raise NotNeeded("learning_rate decides.")
    raise NotSupported("The denoiser is always trained.")


def text_rate(value: Any, theirs: Theirs) -> dict[str, Any]:
    """One rate, or one for each text encoder. 0 leaves one as it is; in kohya_ss, only where unet_lr is given."""
    if trains_unet_only(theirs):
        raise NotNeeded("Only the denoiser is trained.")
    rates = _text_rates(theirs)
    if rates is None:
        raise NotNeeded("learning_rate decides.")
    family = family_of(theirs)
    encoders = 2 if family in ("sdxl", "sd3") else 1  # SD 3's third, T5, is not trained here
    found = text_encoders.settings(rates[:encoders], whole_or(4, theirs.get("network_dim")))
    if len(set(rates)) == 1 or is_sd3(theirs):
        return found
    note = "sd-scripts gives all text encoders the first rate; here each has its own."
    if encoders == 1:
        note = "This base has one text encoder: the first rate counts."
        note = note if family else "What this base is cannot be seen here: the first rate counts, as in sd-scripts."
    return found | {"adapter.text_encoder": Noted(found["adapter.text_encoder"], note)}


def _for_prodigy(rate: float, theirs: Theirs) -> float | Noted:
    if optimizer_of(theirs) != "prodigy" or rate >= 1:
        return rate
    return Noted(rate, "Prodigy multiplies the rate that it finds by this one: 1 is usual, and less slows it.")


def _text_rates(theirs: Theirs) -> list[float] | None:
    """Those of the text encoders alone; None where learning_rate stands for them."""
    value = theirs.get("text_encoder_lr")
    if value is None:
        return [0.0] if trains_unet_only(theirs) else None
    found = numbers(value)
    gui_says_nothing = max(found) == 0 and theirs.gui and not theirs.count("unet_lr")
    return None if gui_says_nothing else found


def unet_only(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {"adapter.text_encoder": False} if switch(value) else {}


def text_stop(value: Any, theirs: Theirs) -> dict[str, Any]:
    share = percent(value)
    if share <= 0:
        return {"adapter.text_stop": 1.0}
    return {"adapter.text_stop": Noted(share, "kohya_ss shows this and ignores it; here it works.")}
