"""Optimizers by name: parameter groups in, a torch optimizer out."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from trainers import patterns
from trainers.config import OptimizerConfig
from trainers.errors import UserError
from trainers.events import Adjusted

Weight = tuple[str, str, str, nn.Parameter]  # part, path as tables of settings name it, name in checkpoints


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

# What each keeps from step to step, as a multiple of the weights in fp32. Adafactor takes that for 1x1 convolutions,
# and next to nothing for large matrices.
STATES = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0, "adafactor": 2.0, "lion": 1.0, "schedulefree": 2.0}


def states(config: OptimizerConfig, device: torch.device) -> float:
    """What the optimizer that will run keeps, as a multiple of the weights."""
    return STATES["adamw" if config.type == "adamw8bit" and not _eight_bit(device) else config.type]


def _eight_bit(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("bitsandbytes") is not None


def build_optimizer(
    groups: list[dict], config: OptimizerConfig, device: torch.device
) -> tuple[torch.optim.Optimizer, Adjusted | None]:
    """The optimizer, and what had to be changed: 8-bit AdamW becomes plain AdamW where it cannot run."""
    rates = {group["lr"] for group in groups}
    if config.type == "prodigy" and len(rates) > 1:  # it finds one step size, and its code moves all groups by it
        for group in groups:
            group["lr"] = config.rate
        return prodigy(groups, config), Adjusted("All weights train at one rate", "Prodigy finds one for all of them.")
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


def parameter_groups(weights: Iterable[Weight], config: OptimizerConfig) -> list[dict]:
    """One group per part and rate, in the order of the weights; those at the denoiser's own rate come first.

    The second matrices of LoRA have `lora_plus` times the rate of the first [LoRA+, Hayou et al. 2024].

    Raises:
        UserError: `block_rates` has a pattern that fits no weight, or `text_rates` more numbers than encoders train.
    """
    weights = list(weights)
    wrong = patterns.idle(config.block_rates, dict.fromkeys(path for _, path, _, _ in weights))
    if wrong:
        message = f"optimizer.block_rates has {wrong[0]!r}, which fits no layer that is trained."
        raise UserError(message, f"For example {weights[0][1]!r} is one.")
    encoders = [1 + int(part.removeprefix("text_")) for part, _, _, _ in weights if part.startswith("text_")]
    if encoders and len(config.text_rates) > max(encoders):
        message = (
            f"optimizer.text_rates has {len(config.text_rates)} rates, and text encoder {max(encoders)} is the last."
        )
        raise UserError(message, "Give one for each in turn.")
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for part, path, name, parameter in weights:
        index = part.removeprefix("text_")
        rate = config.rate_of_text(int(index)) if index.isdecimal() else config.rate
        rate *= patterns.look_up(config.block_rates, path) or 1.0
        rate *= config.lora_plus if name == "up" else 1.0
        groups.setdefault((part, rate), []).append(parameter)
    first = sorted(groups, key=lambda group: group[1] != config.rate)
    return [{"params": groups[part, rate], "lr": rate} for part, rate in first]


def token_group(parameters: list[nn.Parameter], config: OptimizerConfig) -> dict:
    """New tokens have a rate of their own, and no decay: their length is seen to (adapters/tokens.py)."""
    return {"params": parameters, "lr": config.new_tokens_rate, "weight_decay": 0.0}


@torch.no_grad()
def clip(parameters: list[nn.Parameter], most: float) -> Tensor | None:
    """Scale all gradients by one factor so that their norm, taken together, is `most` at the most. No host sync.

    Returns the norm before, as a scalar on the device; None without gradients.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return None
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def require_same(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """UserError where a saved state is of other groups of weights."""
    groups, saved = ([len(group["params"]) for group in one["param_groups"]] for one in (optimizer.state_dict(), state))
    if groups != saved:
        message = "The run was begun with other learning rates for parts of the adapter."
        raise UserError(message, "Set [optimizer] in its config.toml as it was, or start a new run.")


@torch.no_grad()
def multiply(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, factor: Tensor) -> None:
    """parameter <- factor * parameter, and with it what a schedule-free optimizer makes its average from."""
    parameter.mul_(factor)
    state = optimizer.state.get(parameter, {})
    if "z" in state:
        state["z"].mul_(factor)


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
