"""The fingerprints of model files: which tensor names and shapes tell what a file holds."""

from trainers.families.headers import Shapes

LDM_UNET = "model.diffusion_model."
ADAPTER_MARKS = (
    *(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up."),
    *(".lora_linear_layer.", ".hada_w1", ".hada_w2", ".lokr_w1", ".lokr_w2", ".oft_blocks", ".oft_diag", ".dora_scale"),
    *(".lora_magnitude_vector", ".on_input"),
)
ADAPTER_PREFIXES = ("lora_unet_", "lora_te", "lora_transformer_", "lycoris_")
CONTEXT_WIDTH = {768: "sd15", 1024: "sd2", 2048: "sdxl", 1280: "sdxl"}  # input of attn2.to_k; 1280 is SDXL's refiner


def kind_of(shapes: Shapes) -> tuple[str, str, str]:
    """(kind, family, layout) of a file with these tensors; ("unknown", "", "") when no rule fits."""
    for rule in (_adapter, _embedding, _control, _checkpoint, _diffusers_denoiser, _vae, _text_encoder):
        found = rule(shapes)
        if found:
            return found
    return "unknown", "", ""


def _adapter(shapes: Shapes) -> tuple[str, str, str] | None:
    if not any(name.startswith(ADAPTER_PREFIXES) or any(m in name for m in ADAPTER_MARKS) for name in shapes):
        return None
    if any("joint_blocks" in n or "add_q_proj" in n for n in shapes):
        family = "flux" if any("single_transformer_blocks" in n for n in shapes) else "sd3"
    elif any("double_blocks" in n or "single_transformer_blocks" in n for n in shapes):
        family = "flux"
    elif any(n.startswith("lora_te2_") for n in shapes):
        family = "sdxl"
    else:
        family = _family_by_context(shapes) or ("sdxl" if any("input_blocks" in n for n in shapes) else "")
    lycoris = any(mark in name for name in shapes for mark in (".hada_w", ".lokr_w", ".oft_"))
    return ("LyCORIS adapter" if lycoris else "LoRA adapter"), family, ""


def _family_by_context(shapes: Shapes) -> str:
    """The family by the width of the text that cross-attention reads: the last dimension of a `to_k` weight."""
    for name, shape in shapes.items():
        if "attn2" in name and "to_k" in name and len(shape) > 1 and not ("lora_up" in name or "lora_B" in name):
            family = CONTEXT_WIDTH.get(shape[1])
            if family:
                return family
    return ""


def _embedding(shapes: Shapes) -> tuple[str, str, str] | None:
    if set(shapes) == {"clip_l", "clip_g"}:
        return "textual inversion", "sdxl", ""
    # A1111 calls the vectors emb_params; diffusers writes one tensor named by the token itself.
    lone = next(iter(shapes)) if len(shapes) == 1 else "."
    vectors = shapes.get("emb_params") or (None if "." in lone else shapes[lone])
    widths = {768: "sd15", 1024: "sd2", 1280: "sdxl"}
    if vectors and 1 <= len(vectors) <= 2 and (lone == "emb_params" or vectors[-1] in widths):
        return "textual inversion", widths.get(vectors[-1], ""), ""
    return None


def _control(shapes: Shapes) -> tuple[str, str, str] | None:
    if any(n.startswith(("control_model.", "controlnet_cond_embedding.", "input_hint_block.")) for n in shapes):
        return "ControlNet", _family_by_context(shapes), ""
    if any(".motion_modules." in n or n.startswith("motion_modules.") for n in shapes):
        return "AnimateDiff motion module", "", ""
    if any(n.startswith(("image_proj.", "ip_adapter.")) for n in shapes):
        return "IP-Adapter", "", ""
    return None


def _checkpoint(shapes: Shapes) -> tuple[str, str, str] | None:
    """Checkpoints of the original code (LDM, SGM, SD3, Flux), and denoisers cut out of them."""
    prefix = next((p for p in (LDM_UNET, "diffusion_model.", "") if f"{p}input_blocks.0.0.weight" in shapes), None)
    if prefix is None:
        return _transformer_checkpoint(shapes)
    if any(n.startswith("conditioner.embedders.") for n in shapes):
        family, text = "sdxl", True
    elif any(n.startswith("cond_stage_model.model.") for n in shapes):
        family, text = "sd2", True
    elif any(n.startswith("cond_stage_model.transformer.") for n in shapes):
        family, text = "sd15", True
    else:
        family, text = _family_by_context(shapes), False
    if not text:
        return "UNet", family, "ldm"
    channels = shapes[f"{prefix}input_blocks.0.0.weight"]
    inpainting = len(channels) == 4 and channels[1] in (8, 9)
    return ("inpainting base" if inpainting else "base"), family, "ldm"


def _transformer_checkpoint(shapes: Shapes) -> tuple[str, str, str] | None:
    for prefix in (LDM_UNET, "diffusion_model.", ""):
        if any(n.startswith(f"{prefix}joint_blocks.0.") for n in shapes):
            whole = any(n.startswith("text_encoders.clip_l.") for n in shapes)
            return ("base" if whole else "transformer"), "sd3", "ldm" if prefix == LDM_UNET else "bare"
        if any(n.startswith(f"{prefix}double_blocks.0.") for n in shapes):
            return "base", "flux", "ldm"
    return None


def _diffusers_denoiser(shapes: Shapes) -> tuple[str, str, str] | None:
    if "transformer_blocks.0.attn.add_q_proj.weight" in shapes:
        flux = any(n.startswith("single_transformer_blocks.") for n in shapes)
        return "transformer", "flux" if flux else "sd3", "diffusers"
    if "conv_in.weight" in shapes and "time_embedding.linear_1.weight" in shapes:
        return "UNet", _family_by_context(shapes), "diffusers"
    return None


def _vae(shapes: Shapes) -> tuple[str, str, str] | None:
    for prefix in ("", "first_stage_model.", "vae."):
        if f"{prefix}decoder.conv_in.weight" in shapes:
            diffusers = any(n.startswith(f"{prefix}decoder.up_blocks.") for n in shapes)
            return "VAE", "", "diffusers" if diffusers else "ldm"
    return None


def _text_encoder(shapes: Shapes) -> tuple[str, str, str] | None:
    if any("vision_model.encoder.layers." in n or n.startswith("visual.") for n in shapes):
        return "CLIP image encoder", "", ""
    clip = ("encoder.layers.0.self_attn.q_proj.weight", "transformer.resblocks.0.attn.in_proj_weight")
    t5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
    if any(n.endswith(clip) or n.endswith(t5) for n in shapes):
        return "text encoder", "", "diffusers"
    return None
