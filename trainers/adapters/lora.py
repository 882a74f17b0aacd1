"""LoRA on the frozen base: W x + (alpha / rank) B A x  [Hu et al. 2021], attached with peft.

A (`down`) is [rank, in], B (`up`) is [out, rank]; convolutions have the kernel of the layer in A and 1x1 in B.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import Components, FamilySpec

INSIDE_TRANSFORMER = r".*\battentions\.\d+\."
TARGETS = {  # patterns on diffusers module paths
    "attention": INSIDE_TRANSFORMER + r".*attn\d\.to_(q|k|v|out\.0)",
    "transformer": INSIDE_TRANSFORMER + r"(.*attn\d\.to_(q|k|v|out\.0)|.*ff\.net\.(0\.proj|2)|proj_in|proj_out)",
    "full": r"(.*\battentions\.\d+\.(.*attn\d\.to_(q|k|v|out\.0)|.*ff\.net\.(0\.proj|2)|proj_in|proj_out)"
    r"|.*resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)|.*samplers\.0\.conv)",
}
TEXT_TARGETS = r".*(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc[12])"


@dataclass(frozen=True)
class AdapterModule:
    """One adapted layer: the peft layer, its part ("denoiser" or "text_0"), its diffusers path, and its scale."""

    part: str
    path: str
    layer: LoraLayer
    rank: int
    alpha: float

    @property
    def down(self) -> nn.Parameter:
        return self.layer.lora_A["default"].weight

    @property
    def up(self) -> nn.Parameter:
        return self.layer.lora_B["default"].weight


@dataclass
class Adapter:
    """All adapted layers of a run, and the models they sit in."""

    modules: list[AdapterModule]
    models: list[nn.Module]

    def denoiser_parameters(self) -> list[nn.Parameter]:
        return [p for m in self.modules if m.part == "denoiser" for p in (m.down, m.up)]

    def text_parameters(self) -> list[nn.Parameter]:
        return [p for m in self.modules if m.part != "denoiser" for p in (m.down, m.up)]

    def state(self) -> dict[str, Tensor]:
        """fp32 copies on the CPU, keyed part/path.down and .up."""
        tensors = {f"{m.part}/{m.path}.{name}": getattr(m, name) for m in self.modules for name in ("down", "up")}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`; KeyError when a layer is missing."""
        for m in self.modules:
            m.down.copy_(state[f"{m.part}/{m.path}.down"])
            m.up.copy_(state[f"{m.part}/{m.path}.up"])

    def set_strength(self, strength: float) -> None:
        """Scale the whole adapter: 0 is the base, 1 as trained."""
        for m in self.modules:
            m.layer.scaling["default"] = strength * m.alpha / m.rank

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the models are the base."""
        self.set_strength(0.0)
        try:
            yield
        finally:
            self.set_strength(1.0)

    def train(self) -> None:
        for model in self.models:
            model.train()

    def eval(self) -> None:
        for model in self.models:
            model.eval()


def attach(components: Components, spec: FamilySpec, config: AdapterConfig, seed: int) -> Adapter:
    """Put fresh LoRA layers (fp32, up = 0: they change nothing yet) into the denoiser and, if asked, the text encoders.

    Their start depends on `seed` and the layers' order alone; the global random state stays as it was.

    Raises:
        UserError: no layer matches `config.targets`, or it is no valid pattern.
    """
    generator = torch.Generator().manual_seed(seed)
    pattern = TARGETS.get(config.targets, config.targets)
    modules = _inject(components.denoiser, "denoiser", pattern, config.rank, config.alpha, config, generator)
    models: list[nn.Module] = [components.denoiser]
    if config.text_encoder:
        rank = config.text_rank or config.rank
        alpha = config.text_alpha or (config.alpha if config.text_rank is None else None)
        for i, encoder in enumerate(components.text_encoders):
            modules += _inject(encoder, f"text_{i}", TEXT_TARGETS, rank, alpha, config, generator)
            models.append(encoder)
    return Adapter(modules, models)


def _inject(
    model: nn.Module,
    part: str,
    pattern: str,
    rank: int,
    alpha: float | None,
    config: AdapterConfig,
    generator: torch.Generator,
) -> list[AdapterModule]:
    model.requires_grad_(False)
    try:
        matches = [n for n, m in model.named_modules() if _adaptable(m) and re.fullmatch(pattern, n)]
    except re.error as error:
        hint = f"Use one of {', '.join(TARGETS)}, or mend the pattern."
        raise UserError(f"adapter.targets is no valid pattern: {error}.", hint) from error
    if not matches:
        hint = f"Use one of {', '.join(TARGETS)}, or a pattern that fits whole module paths."
        raise UserError(f"adapter.targets = {config.targets!r} matches no layer of the {part}.", hint)
    alpha = float(alpha or rank)
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=matches, lora_dropout=config.dropout)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(lora, model)
    modules = []
    for path in matches:
        layer = model.get_submodule(path)
        module = AdapterModule(part, path, layer, rank, alpha)
        for side in (layer.lora_A["default"], layer.lora_B["default"]):
            side.to(torch.float32)  # fp32 masters: in bf16 a small step vanishes
        _start(module.down, module.up, generator)
        modules.append(module)
    return modules


def _adaptable(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv2d))


@torch.no_grad()
def _start(down: nn.Parameter, up: nn.Parameter, generator: torch.Generator) -> None:
    """Kaiming-uniform with a = sqrt 5 for A, that is U(-1, 1)/sqrt(fan in); zero for B [peft's and kohya's start]."""
    bound = 1 / math.sqrt(down[0].numel())
    down.copy_((torch.rand(down.shape, generator=generator) * 2 - 1) * bound)
    up.zero_()
