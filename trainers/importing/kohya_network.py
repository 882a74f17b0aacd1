"""kohya's kinds of networks -> our adapter types, and the settings that only networks have."""

from typing import Any

from trainers import choices
from trainers.importing.kohya_family import OTHERS
from trainers.importing.rows import Lacks, Row, Rule, Table, Unneeded, family
from trainers.importing.theirs import Theirs
from trainers.importing.values import Noted, NotNeeded, NotSupported, is_off, number, switch, text, whole

LABELS = {"lora": "LoRA", "locon": "LoCon", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}
LORA_TYPES = {  # kohya_ss
    "Standard": "lora",
    "LoCon": "locon",
    "Kohya LoCon": "locon",
    "LyCORIS/LoCon": "locon",
    "Kohya LoHa": "loha",
    "LyCORIS/LoHa": "loha",
    "Kohya LoKr": "lokr",
    "LyCORIS/LoKr": "lokr",
}
MODULES = {  # sd-scripts
    "networks.lora": "lora",
    "networks.lora_sd3": "lora",
    "networks.loha": "loha",
    "networks.lokr": "lokr",
    "lycoris.kohya": "lycoris",
}
ALGORITHMS = {"lora": "locon", "locon": "locon", "loha": "loha", "lokr": "lokr"}  # LyCORIS
PRESETS = {  # of LyCORIS -> adapter.targets
    "full": "full",
    "unet-only": "full",
    "attn-mlp": "transformer",
    "unet-transformer-only": "transformer",
    "attn-only": "attention",
}
UNET_PRESETS = ("unet-only", "unet-transformer-only", "unet-convblock-only")
LINEAR_PRESETS = ("full-lin", "attn-mlp", "unet-transformer-only", "attn-only")  # 3x3 convolutions are left out
RANKED_CONVOLUTIONS = ("locon", "dora", "loha", "lokr")


def lora_type(value: Any, theirs: Theirs) -> dict[str, Any]:
    return adapter(kind_of(theirs))


def network_module(value: Any, theirs: Theirs) -> dict[str, Any]:
    if theirs.get("LoRA_type"):
        raise NotNeeded("LoRA_type decides.")
    return adapter(kind_of(theirs))


def algorithm(value: Any, theirs: Theirs) -> dict[str, Any]:
    raise NotNeeded("Read together with network_module.")


def dora(value: Any, theirs: Theirs) -> dict[str, Any]:
    if not switch(value):
        return {}
    if kind_of(theirs) != "dora":
        raise NotSupported("Only LoRA and LoCon can be decomposed into magnitude and direction.")
    return adapter("dora")


def eight_bits(value: Any, theirs: Theirs) -> dict[str, Any]:
    """fp8_base: what the network sits on."""
    return quantised("int8", kind_of(theirs)) if switch(value) else {}


def quantised(form: str, kind: str) -> dict[str, Any]:
    """A base in so many bits, under an adapter of this type."""
    if kind == "dora":
        raise NotSupported("A DoRA is made of the base's own weights, which are not rounded.")
    return {"memory.quantize": Noted(form, "Only the linear layers of the denoiser are rounded, in our own format.")}


def alpha(value: Any, theirs: Theirs) -> dict[str, Any]:
    """One alpha for all parts; 0 means that of the rank."""
    found = number(value) or None
    return {"adapter.alpha": found, "adapter.text_alpha": found}


def adapter(kind: str) -> dict[str, Any]:
    """Our adapter type, or the reason why plain LoRA is trained instead."""
    if kind not in choices.ADAPTERS:
        yet = " yet" if kind in LABELS else ""
        raise NotSupported(f"{LABELS.get(kind, kind)} is not supported{yet}: plain LoRA is trained.")
    return {"adapter.type": kind}


def kind_of(theirs: Theirs) -> str:
    """lora, locon, dora, loha or lokr; the name itself for other networks."""
    if theirs.get("LoRA_type"):
        name = text(theirs.get("LoRA_type"))
        return _with_dora(_without_convolutions(LORA_TYPES.get(name, name), theirs), theirs)
    module = text(theirs.get("network_module") or "networks.lora")
    kind = MODULES.get(module, module)
    if kind == "lycoris":
        algo = text(theirs.argument("algo") or "lora").lower()
        kind = ALGORITHMS.get(algo, f"LyCORIS {algo}")
    if kind == "lora" and theirs.count("network_args.conv_dim") > 0:
        kind = "locon"
    return _with_dora(_without_convolutions(kind, theirs), theirs)


def is_lycoris(theirs: Theirs) -> bool:
    return "lycoris" in text(theirs.get("LoRA_type", "network_module") or "").lower()


def convolutions(theirs: Theirs) -> dict[str, Any]:
    """What holds of convolutions where the file is silent: LyCORIS trains them as wide as the rest."""
    kind, given = kind_of(theirs), theirs.argument("conv_dim") is not None
    if kind not in RANKED_CONVOLUTIONS or not (is_lycoris(theirs) or given):
        return {}
    found = layers(theirs)
    if given and theirs.argument("conv_alpha") is None:
        found["adapter.conv_alpha"] = (theirs.count("network_alpha") if is_lycoris(theirs) else 0) or 1.0
    return found


def preset_of(theirs: Theirs) -> str:
    """LyCORIS' choice of layers."""
    return text(theirs.argument("preset") or theirs.get("LyCORIS_preset") or "full")


def trains_unet_only(theirs: Theirs) -> bool:
    return theirs.on("network_train_unet_only") or (is_lycoris(theirs) and preset_of(theirs) in UNET_PRESETS)


def layers(theirs: Theirs) -> dict[str, Any]:
    """The layers of a LyCORIS network; a LoCon has its convolutions by its type."""
    kind = kind_of(theirs)
    if not is_lycoris(theirs) or kind not in choices.ADAPTERS or preset_of(theirs) not in PRESETS:
        return {}
    targets = PRESETS[preset_of(theirs)]
    return {"adapter.targets": "transformer" if kind == "locon" else targets}


def preset(value: Any, theirs: Theirs) -> dict[str, Any]:
    if not is_lycoris(theirs):
        raise NotNeeded("Only for LyCORIS.")
    text_encoder = {"adapter.text_encoder": False} if text(value) in UNET_PRESETS else {}
    if text(value) not in PRESETS:
        raise NotSupported("There is no such choice of layers here: set adapter.targets.")
    return layers(theirs) | text_encoder


def dropout(name: str) -> Rule:
    """LyCORIS goes by its argument `dropout`, and else by network_dropout; kohya's own networks go by the latter."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        given = [one for one in DROPOUTS if theirs.get(one) is not None]
        first = given[0] if is_lycoris(theirs) else given[-1]
        if name != first:
            raise NotNeeded(f"{first} decides.")
        return {"adapter.dropout": number(value)}

    return Rule(decide)


def lora_plus(value: Any, theirs: Theirs) -> dict[str, Any]:
    return {} if is_off(value) else {"optimizer.lora_plus": number(value)}


def rank_scale(value: Any, theirs: Theirs) -> dict[str, Any]:
    """kohya's own networks always scale up what rank dropout leaves, as is done here; LyCORIS only where it says so."""
    if is_lycoris(theirs) and not switch(value) and not is_off(theirs.argument("rank_dropout")):
        raise NotSupported("What rank dropout leaves is always scaled up.")
    return {}


def only_convolutions(ours: str, read: Any) -> Rule:
    """A setting of convolutions: kohya passes it over where the network has none."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if kind_of(theirs) not in RANKED_CONVOLUTIONS:
            raise NotNeeded("This network has no convolutions.")
        if kind_of(theirs) not in choices.ADAPTERS:
            raise NotSupported("Plain LoRA is trained, which leaves convolutions alone.")
        return {ours: read(value)}

    return Rule(decide)


def only_lokr(ours: str, read: Any) -> Rule:
    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if kind_of(theirs) != "lokr":
            raise NotNeeded("Only LoKr has it.")
        return {} if is_off(value, (-1,)) else {ours: read(value)}

    return Rule(decide)


def _without_convolutions(kind: str, theirs: Theirs) -> str:
    """A LoCon of LyCORIS whose preset leaves its convolutions out is a LoRA."""
    return "lora" if kind == "locon" and is_lycoris(theirs) and preset_of(theirs) in LINEAR_PRESETS else kind


def _with_dora(kind: str, theirs: Theirs) -> str:
    value = theirs.argument("dora_wd")
    return "dora" if kind in ("lora", "locon") and value is not None and not is_off(value) else kind


def sdxl(value: Any, theirs: Theirs) -> dict[str, Any]:
    return family("sdxl") if switch(value) else {}


def sd2(value: Any, theirs: Theirs) -> dict[str, Any]:
    return family("sd2") if switch(value) else {}


def sd3(value: Any, theirs: Theirs) -> dict[str, Any]:
    return family("sd3") if switch(value) else {}


DROPOUTS = ("network_args.dropout", "network_args.network_dropout", "dropout", "network_dropout")
BLOCKS = Lacks("Blocks are named, not numbered, here: set adapter.block_ranks or optimizer.block_rates.")
NETWORK: Table = {
    "conv_dim": only_convolutions("adapter.conv_rank", whole),
    "conv_alpha": only_convolutions("adapter.conv_alpha", number),
    "dora_wd": Rule(dora),
    "factor": only_lokr("adapter.factor", whole),
    "rank_dropout": Row("adapter.rank_dropout", number),
    "module_dropout": Row("adapter.module_dropout", number),
    "rank_dropout_scale": Rule(rank_scale),
    **dict.fromkeys(("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold"), BLOCKS),
    **dict.fromkeys(("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"), BLOCKS),
    **dict.fromkeys(("block_lr", "conv_dims", "conv_alphas", "network_reg_dims", "network_reg_lrs"), BLOCKS),
    **dict.fromkeys(("use_tucker", "use_cp"), Lacks("Convolutions are not split by a Tucker decomposition.")),
    "use_scalar": Lacks("Adapters have no trained scalar."),
    "decompose_both": only_lokr("adapter.decompose_both", switch),
    "full_matrix": Lacks("LoKr is always of the given rank."),
    "bypass_mode": Lacks("Adapters change weights, not outputs."),
    "train_norm": Lacks("Normalisation layers are not trained."),
    "rescaled": Lacks("Only for BOFT and OFT."),
    "constrain": Lacks("Only for BOFT and OFT."),
    "constraint": Lacks("Only for BOFT and OFT."),
    "unit": Lacks("Only for DyLoRA.", (1,)),
    "train_on_input": Unneeded("Only for iA3."),
    **dict.fromkeys(("LyCORIS_preset", "preset"), Rule(preset)),
    **dict.fromkeys(("loraplus_lr_ratio", "loraplus_unet_lr_ratio"), Rule(lora_plus)),
    "loraplus_text_encoder_lr_ratio": Lacks("LoRA+ has one ratio for all parts: optimizer.lora_plus."),
    **dict.fromkeys(("train_lora_ggpo", "ggpo_sigma", "ggpo_beta"), Unneeded("Only for Flux.")),
}
ARGUMENTS: Table = {
    **{f"network_args.{name}": row for name, row in NETWORK.items()},
    "network_args.algo": Rule(algorithm),
    **{name: dropout(name) for name in DROPOUTS},
}
CHOICE: Table = {
    "LoRA_type": Rule(lora_type),
    "network_module": Rule(network_module),
    "network_dim": Row("adapter.rank", whole),
    "network_alpha": Rule(alpha),
    "v2": Rule(sd2),
    "sdxl": Rule(sdxl),
    "sd3_checkbox": Rule(sd3),
    **dict.fromkeys(OTHERS, Lacks("Only Stable Diffusion models are trained here.")),
}
