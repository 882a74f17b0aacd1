"""Which family a run of kohya's trains, and the setting that only some families have.

Facts from kohya_ss (kohya_gui/lora_gui.py) and sd-scripts (train_network.py, library/sdxl_train_util.py,
library/sd3_train_utils.py), read in 2026.
"""

import re
from typing import Any

from trainers.errors import UserError
from trainers.families.detect import identify
from trainers.families.locate import find_here
from trainers.importing.theirs import Theirs, resolve
from trainers.importing.values import NotNeeded, NotSupported, text, whole

SD1 = re.compile(r"[\w.-]+/stable-diffusion-v1-\d")  # on the Hugging Face hub
OTHERS = ("flux1_checkbox", "hunyuan_image_checkbox", "anima_checkbox", "lumina_checkbox")


def is_sd3(theirs: Theirs) -> bool:
    return theirs.on("sd3_checkbox") or text(theirs.get("network_module") or "") == "networks.lora_sd3"


def family_of(theirs: Theirs) -> str:
    """Of the base, as it shows on this machine, else as the file or the base's name says it; "" where none tells.

    A base that was named in place of the file's tells by itself or not at all.
    """
    base = text(theirs.get("pretrained_model_name_or_path") or "")
    try:
        path = find_here(theirs.base or resolve(base, theirs.place))
        found = identify(path).family if path else ""
    except (UserError, OSError):
        found = ""
    said = "" if theirs.base else _said(theirs)
    return found or said or ("sd15" if SD1.fullmatch(theirs.base or base) else "")


def clip_skip(value: Any, theirs: Theirs) -> dict[str, Any]:
    layer = max(whole(value), 1)  # 0 is kohya_ss's "as the model says"
    family = family_of(theirs)
    if family in ("sdxl", "sd3"):
        raise NotNeeded("kohya's scripts pass it over for Stable Diffusion XL and 3.")
    if layer > 1 and family not in ("sd15", "sd2"):
        raise NotSupported(
            "kohya's scripts heed it for Stable Diffusion 1 and 2 alone, and what this base is cannot be seen here: "
            f"set model.clip_skip = {layer} if it is one of them."
        )
    return {"model.clip_skip": layer}


def _said(theirs: Theirs) -> str:
    """What the settings say: the window has a switch for each family, and Stable Diffusion 1 is none of them.

    sd-scripts trains Stable Diffusion 1 and XL with two scripts, and no setting tells for which of them a file is.
    """
    if theirs.on("sdxl"):
        return "sdxl"
    if is_sd3(theirs):
        return "sd3"
    if theirs.on("v2"):
        return "sd2"
    if theirs.on("cache_text_encoder_outputs"):  # of Stable Diffusion XL and later families
        return "sdxl"
    return "sd15" if theirs.gui and not theirs.on(*OTHERS) else ""
