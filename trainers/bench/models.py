"""The bases that can be measured: a real one, or random weights in the true shapes of any family and size."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily

from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.families import loading
from trainers.families.base import Components, Family
from trainers.families.registry import find_family

SIZES: dict[str, tuple[str, str, str]] = {  # name -> family, folder of its shapes in families/configs, label
    "sd15": ("sd15", "sd15", "Stable Diffusion 1.5"),
    "sd21": ("sd2", "sd2-768", "Stable Diffusion 2.1"),
    "sdxl": ("sdxl", "sdxl", "Stable Diffusion XL"),
    "sd3-medium": ("sd3", "sd3-medium", "Stable Diffusion 3 Medium"),
    "sd35-medium": ("sd3", "sd3.5-medium", "Stable Diffusion 3.5 Medium"),
    "sd35-large": ("sd3", "sd3.5-large", "Stable Diffusion 3.5 Large"),
}


def settings(base: str, changes: list[str]) -> TrainConfig:
    """The settings of a run on that base; `changes` as `section.key=value`."""
    model = {"family": SIZES[base][0]} if base in SIZES else {"base": base}
    return config_io.override(config_io.parse({"model": model}), changes)


def build(base: str, config: TrainConfig, dtype: torch.dtype) -> tuple[Family, Components, str]:
    """The family, its parts, and what they are called."""
    family = find_family(config.model)
    if base in SIZES:
        _, folder, label = SIZES[base]
        return family, loading.untrained(family.spec, family.source, dtype, folder), f"{label}, random weights"
    with unset_fake_temporarily():  # a file's numbers are read, if only to be dropped
        components = family.load(config.model, dtype)
    return family, hollow(components) if torch._guards.detect_fake_mode() else components, components.name


def hollow(components: Components) -> Components:
    """Parts of the same architecture, made anew: inside `without_numbers`, without any."""
    return replace(
        components,
        denoiser=hollow_model(components.denoiser),
        vae=hollow_model(components.vae),
        text_encoders=tuple(hollow_model(encoder) for encoder in components.text_encoders),
    )


def hollow_model(model: nn.Module) -> nn.Module:
    made = type(model).from_config(model.config) if hasattr(model, "from_config") else type(model)(model.config)
    return nn.Module.to(made, model.dtype).eval().requires_grad_(False)  # diffusers' own `to` warns of nothing


@contextmanager
def without_numbers(on: bool) -> Iterator[None]:
    """Inside, where `on`, tensors have a shape, a dtype and a device, and take no memory: nothing is computed.

    The same operators are called as on a CPU, so that all of them can be counted for models of any size.
    """
    if not on:
        yield
        return
    usual, nn.Module._apply = nn.Module._apply, _apply
    gc.collect()
    gc.disable()  # torch 2.13 crashes where Python collects a model of such tensors: what is left of it stays
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # where torch copies a model
            yield
    except DataDependentOutputException as error:
        message = f"A step with these settings needs numbers ({error}), and --device meta has none."
        raise UserError(message, "Leave the setting out, or measure on a device.") from error
    finally:
        nn.Module._apply = usual
        gc.freeze()
        gc.enable()


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What `Module.to` does, with new parameters: torch's swaps the insides of old ones, which these tensors forbid."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and (changed := change(parameter)) is not parameter:
                part._parameters[name] = nn.Parameter(changed.detach(), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module
