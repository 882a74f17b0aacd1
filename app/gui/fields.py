"""A setting's Field as a control of the form: title, unit, bounds, help, what it is called elsewhere, its mark."""

from dataclasses import dataclass
from functools import cache

from app.gui.markup import act, edit, text
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS, Problem, choices, kinds, wanted
from trainers.importing.kohya import KOHYA
from trainers.importing.rows import Row

SECTIONS = {
    "model": "Base model",
    "adapter": "Adapter",
    "data": "Pictures and captions",
    "noise": "Noise",
    "loss": "Loss",
    "optimizer": "Optimizer",
    "schedule": "Length and schedule",
    "preview": "Previews",
    "saving": "Saving",
    "memory": "Memory and speed",
    "": "Chance",
}
ELSEWHERE = {  # more words that people look for: names of kohya_ss, sd-scripts and OneTrainer, and plain ones
    "model.base": "pretrained_model_name_or_path base_model_name checkpoint",
    "model.family": "sdxl v2 sd3 model_type",
    "model.prediction": "v_parameterization v_pred prediction_type",
    "model.vae": "vae",
    "model.clip_skip": "clip_skip text_encoder_layer_skip",
    "adapter.type": "network_module lycoris algo peft_type LoRA_type",
    "adapter.rank": "network_dim dim lora_rank",
    "adapter.alpha": "network_alpha lora_alpha",
    "adapter.conv_rank": "conv_dim",
    "adapter.conv_alpha": "conv_alpha",
    "adapter.targets": "layer_filter train_norm preset block",
    "adapter.block_ranks": "block_dims block_lr_zero_threshold network_block",
    "adapter.dropout": "network_dropout dropout_probability",
    "adapter.text_encoder": "network_train_unet_only te clip",
    "adapter.text_stop": "stop_text_encoder_training",
    "adapter.new_tokens": "embedding textual inversion ti",
    "adapter.init_from": "network_weights lora_network_weights lora_model_name",
    "data.folders": "train_data_dir image_dir concepts dataset",
    "data.trigger": "class_tokens instance token activation keyword",
    "data.resolution": "max_resolution resolution size",
    "data.repeats": "num_repeats dataset_repeats balancing",
    "data.batch_size": "train_batch_size",
    "data.bucketing": "enable_bucket aspect_ratio_bucketing",
    "data.flip": "flip_aug horizontal",
    "data.class_words": "regularisation regularization class_prompt",
    "data.class_pictures": "reg_data_dir regularisation regularization prior_loss_weight num_class_images",
    "noise.offset": "noise_offset offset_noise_weight",
    "noise.timestep_min": "min_timestep min_noising_strength",
    "noise.timestep_max": "max_timestep max_noising_strength",
    "noise.density": "weighting_scheme timestep_distribution",
    "noise.shift": "discrete_flow_shift timestep_shift training_shift",
    "loss.type": "loss_type mse mae huber",
    "loss.weighting": "min_snr_gamma debiased_estimation_loss loss_weight_fn",
    "loss.snr_gamma": "min_snr_gamma",
    "loss.huber_c": "huber_c",
    "loss.preservation": "prior_loss_weight dop",
    "optimizer.type": "optimizer_type adam lion",
    "optimizer.rate": "learning_rate unet_lr lr",
    "optimizer.text_rate": "text_encoder_lr te_lr",
    "optimizer.text_rates": "text_encoder_lr1 text_encoder_lr2",
    "optimizer.block_rates": "block_lr down_lr_weight up_lr_weight mid_lr_weight",
    "optimizer.lora_plus": "loraplus_lr_ratio lora plus",
    "optimizer.accumulation": "gradient_accumulation_steps",
    "optimizer.clip_norm": "max_grad_norm clip_grad_norm",
    "schedule.steps": "max_train_steps length",
    "schedule.views": "epoch epochs max_train_epochs length",
    "schedule.type": "lr_scheduler learning_rate_scheduler",
    "schedule.warmup": "lr_warmup_steps lr_warmup learning_rate_warmup_steps",
    "schedule.cycles": "lr_scheduler_num_cycles learning_rate_cycles",
    "preview.every": "sample_every_n_steps sample_after sample_every_n_epochs",
    "preview.prompts": "sample_prompts samples",
    "preview.guidance": "cfg scale",
    "saving.name": "output_name save_filename_prefix",
    "saving.dtype": "save_precision output_dtype",
    "saving.every": "save_every_n_steps save_every_n_epochs",
    "saving.keep": "save_last_n_steps",
    "saving.privacy": "no_metadata",
    "saving.comment": "training_comment",
    "memory.precision": "mixed_precision train_dtype",
    "memory.attention": "xformers sdpa flash cudnn mem_eff_attn attention_mechanism",
    "memory.checkpointing": "gradient_checkpointing",
    "memory.budget": "vram limit lowvram",
    "memory.quantize": "fp8_base nf4 qlora quantization weight_dtype",
    "memory.stream": "blocks_to_swap block swap layer offloading lowvram offload_fraction",
    "memory.compile": "torch_compile dynamo inductor",
    "memory.graphs": "cuda graphs cudagraph",
    "memory.exact": "deterministic reproducible",
    "memory.cache_latents": "cache_latents latent_caching",
    "seed": "random",
}
LABELS = {"model.base": "Base model, as text"}  # the list at the top of the page has the short name
TABLE = '{ "up_blocks.1" = 8 }'


@cache
def words(name: str) -> str:
    """What a setting is found by besides the texts of its field: its section, and its names in other trainers."""
    theirs = [key for key, row in KOHYA.items() if isinstance(row, Row) and row.ours == name]
    return " ".join([SECTIONS[name.rpartition(".")[0]], ELSEWHERE.get(name, ""), *theirs]).lower()


def label(name: str) -> str:
    return LABELS.get(name) or SETTINGS[name].title or name


def unit(name: str) -> str:
    return (SETTINGS[name].json_schema_extra or {}).get("unit", "")


def identifier(name: str) -> str:
    """Of the control, for links to it."""
    return f"setting-{name.replace('.', '-')}"


def by_section() -> dict[str, list[str]]:
    """Section -> its settings, in the order of the config."""
    found: dict[str, list[str]] = {}
    for name in [*(n for n in SETTINGS if "." in n), *(n for n in SETTINGS if "." not in n)]:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    assert list(found) == [name for name in TrainConfig.model_fields if name in SECTIONS and name] + [""]
    return found


def control(name: str, shown: str, wrong: bool) -> str:
    """The form control: a tick, a list to choose from, several lines, or a line that takes 1e-4 as well."""
    wanted_kinds = kinds(SETTINGS[name])
    about = (
        f'id="{identifier(name)}" {edit("set", setting=name)} data-shown="{text(shown)}" '
        f'title="{text(_sentence(name))}" aria-describedby="{identifier(name)}-help" '
        f'aria-invalid="{str(wrong).lower()}"'
    )
    if bool in wanted_kinds:
        ticked = "checked" if shown == "true" else ""
        return f'<input type="checkbox" {about} {ticked}>'
    offered = choices(name)
    if offered:
        listed = offered if shown in offered else (*offered, shown)
        options = "".join(
            f'<option value="{text(one)}" {"selected" if one == shown else ""}>{text(one)}</option>' for one in listed
        )
        return f'<select class="dr-field" {about}>{options}</select>'
    if wanted_kinds & {tuple, dict}:
        example = TABLE if dict in wanted_kinds else "One per line"
        return f'<textarea class="dr-field" rows="2" placeholder="{text(example)}" {about}>{text(shown)}</textarea>'
    number = bool(wanted_kinds & {int, float})
    mode = 'inputmode="decimal" spellcheck="false"' if number else 'spellcheck="false"'
    empty = "automatic" if type(None) in wanted_kinds else ""
    return (
        f'<input type="text" class="dr-field" autocomplete="off" {mode} placeholder="{empty}" '
        f'value="{text(shown)}" {about}>'
    )


@dataclass(frozen=True)
class State:
    """What of a field changes while the page is open: its text, and HTML of its problems and of the way back."""

    shown: str
    back: str = ""  # to the preset's value, where it differs
    wrong: str = ""


def state(name: str, shown: str, advised: str, changed: bool, problems: tuple[Problem, ...]) -> State:
    wrong = "".join(f"<span>{text(f'{problem.message} {problem.hint}'.strip())}</span> " for problem in problems)
    return State(shown, _back(name, advised) if changed else "", wrong)


def field(name: str, now: State, full: bool) -> str:
    """A setting with its label, help, problems, and the way back to the preset's value.

    Args:
        full: with the name that files and the command line use.
    """
    measure = f' <span class="dr-quiet">{text(unit(name))}</span>' if unit(name) else ""
    marks = " ".join(mark for mark, holds in (("changed", now.back), ("wrong", now.wrong)) if holds)
    dotted = f'<code class="dr-mono">{text(name)}</code>' if full else ""
    return (
        f'<div class="dr-setting {marks}" data-setting="{name}" data-words="{text(words(name))}">'
        f'<div class="dr-label"><label for="{identifier(name)}">{text(label(name))}{measure}</label>'
        f'<span class="dr-way-back">{now.back}</span></div>'
        f"<div>{control(name, now.shown, bool(now.wrong))}</div>"
        f'<div class="dr-wrong" role="alert">{now.wrong}</div>'
        f'<p class="dr-help" id="{identifier(name)}-help">{text(SETTINGS[name].description or "")} {dotted}</p></div>'
    )


def _back(name: str, advised: str) -> str:
    short = advised.replace("\n", ", ") or "empty"
    short = {"true": "on", "false": "off"}.get(short, short if len(short) <= 24 else f"{short[:21]}...")
    told = f"{label(name)}: back to the preset's value, {short}"
    return (
        f'<button type="button" class="dr-button quiet dr-back" aria-label="{text(told)}" title="{text(told)}" '
        f"{act('reset', setting=name)}>Back to {text(short)}</button>"
    )


@cache
def _sentence(name: str) -> str:
    takes = wanted(name)
    return f"{takes[0].upper()}{takes[1:]}."
