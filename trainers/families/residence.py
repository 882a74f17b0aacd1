"""Which models of a pipeline are in memory: each comes when it is needed and goes when it is not.

So text encoders, VAE and denoiser never lie side by side unless all are at work. What a model's weights are is read
from its files again: they are the base's own, which nothing changes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from trainers import devices
from trainers.families.weights import Source


def is_away(module: nn.Module) -> bool:
    """Whether its weights are not in memory."""
    return any(parameter.is_meta for parameter in module.parameters())


def bring(module: nn.Module, device: torch.device, mapped: bool = True) -> nn.Module:
    """Put the module on `device`, reading its weights where they are away.

    `mapped`: on a CPU the pages of the file itself serve where its number format is the wanted one. They stay counted
    as the process's memory, so that a model which is to go again is read instead.
    """
    if is_away(module):
        source: Source = module.source
        source.fill(module, device, mapped and device.type == "cpu")
        devices.hand_back()  # what it was read into, in the file's number format
    return module.to(device)


def release(module: nn.Module) -> None:
    """Give its memory back. A module that has no file, or is no longer as its file has it, waits on the CPU."""
    if is_original(module):
        module.to("meta")
    else:
        module.to("cpu")
    devices.hand_back()  # a model's memory comes in pieces that do not fit what follows


def is_original(module: nn.Module) -> bool:
    """Whether its file can give back what it is; not with an adapter or new tokens on it."""
    source = getattr(module, "source", None)
    return source is not None and source.names.keys() == module.state_dict().keys()


@contextmanager
def lent(modules: list[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, the modules are on `device` in eval mode; afterwards each is as and where it was."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_lent(module, device))
        yield


@contextmanager
def _lent(module: nn.Module, device: torch.device) -> Iterator[None]:
    away, training = is_away(module), module.training
    place = next(module.parameters()).device
    try:
        bring(module, device, mapped=not away).eval()
        yield
    finally:
        module.train(training)
        release(module) if away else module.to(place)
