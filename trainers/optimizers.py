"""Optimizers by name: parameter groups in, a torch optimizer out."""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn

from trainers.config import OptimizerConfig
from trainers.errors import UserError
from trainers.events import Adjusted


def adamw(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Loshchilov & Hutter 2019, one fused kernel for all tensors."""
    return torch.optim.AdamW(groups, lr=config.rate, weight_decay=config.weight_decay, fused=True)


def adamw8bit(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with 8-bit block-wise state [Dettmers et al. 2022]; needs bitsandbytes and a GPU it supports."""
    try:
        bitsandbytes = import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        hint = "Install it with the `gpu` extra, or choose optimizer.type = adamw: LoRA states are small anyway."
        raise UserError("AdamW8bit needs bitsandbytes, which is not working here.", hint) from error
    return bitsandbytes.optim.AdamW8bit(groups, lr=config.rate, weight_decay=config.weight_decay)


def prodigy(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Finds its own rate; `rate` multiplies it and should be 1 [Mishchenko & Defazio 2023]."""
    from pytorch_optimizer import Prodigy  # noqa: PLC0415 - slow import, one optimizer in six needs it

    options = {"weight_decay": config.weight_decay, "weight_decouple": True, "bias_correction": True}
    return Prodigy(groups, lr=config.rate, safeguard_warmup=True, **options)


def adafactor(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Factored second moments with a fixed rate [Shazeer & Stern 2018]."""
    from transformers.optimization import Adafactor  # noqa: PLC0415 - slow import, one optimizer in six needs it

    options = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return Adafactor(groups, lr=config.rate, weight_decay=config.weight_decay, **options)


def lion(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Sign of a momentum; wants a rate three to ten times below AdamW's [Chen et al. 2023]."""
    from pytorch_optimizer import Lion  # noqa: PLC0415 - slow import, one optimizer in six needs it

    return Lion(groups, lr=config.rate, weight_decay=config.weight_decay)


def schedulefree(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW that averages its iterates in place of a schedule [Defazio et al. 2024]."""
    from pytorch_optimizer import ScheduleFreeAdamW  # noqa: PLC0415 - slow import, one optimizer in six needs it

    return ScheduleFreeAdamW(groups, lr=config.rate, weight_decay=config.weight_decay)


OPTIMIZERS: dict[str, Callable[[list[dict], OptimizerConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adamw8bit": adamw8bit,
    "prodigy": prodigy,
    "adafactor": adafactor,
    "lion": lion,
    "schedulefree": schedulefree,
}


def build_optimizer(
    groups: list[dict], config: OptimizerConfig, device: torch.device
) -> tuple[torch.optim.Optimizer, Adjusted | None]:
    """The optimizer, and what had to be changed: 8-bit AdamW becomes plain AdamW where it cannot run."""
    try:
        if config.type == "adamw8bit" and device.type != "cuda":
            raise UserError(f"AdamW8bit needs a CUDA device, and this run is on {device.type}.")
        return OPTIMIZERS[config.type](groups, config), None
    except UserError as error:
        if config.type != "adamw8bit":
            raise
        return adamw(groups, config), Adjusted("The optimizer is AdamW, not AdamW8bit", error.message)


def described(optimizer: torch.optim.Optimizer) -> str:
    """The optimizer that really runs, as kohya writes it: `torch.optim.adamw.AdamW(weight_decay=0.01)`."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    decay = inner.param_groups[0]["weight_decay"]
    return f"{type(inner).__module__}.{type(inner).__qualname__}(weight_decay={decay})"


def parameter_groups(denoiser: list, text: list, config: OptimizerConfig) -> list[dict]:
    """One group per part, each with its own rate; an empty part makes no group."""
    groups = [{"params": denoiser, "lr": config.rate}, {"params": text, "lr": config.text_encoder_rate}]
    return [group for group in groups if group["params"]]


def averaged(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Switch a schedule-free optimizer's weights between training (off) and the average that is saved (on)."""
    switch = getattr(optimizer, "eval" if on else "train", None)
    if switch is not None:
        switch()


def settle(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Parameters that are no longer trained stay as they are: a schedule-free optimizer's switch moves them no more."""
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        if "z" in state:  # the switch goes some way between a parameter and its z
            state["z"].copy_(parameter.detach())
