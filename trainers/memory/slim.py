"""Frozen layers that keep less for the backward pass, at no cost in matrix products and with the same gradients.

A frozen convolution's gradient needs its weight alone, but torch keeps the input as well. Normalisation and activation
are cheap: what they give is made again from their input. Together two tensors stay of a residual block, where torch
keeps six, and one of a gated MLP, where it keeps two.
"""

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def slim(denoiser: nn.Module, on: bool) -> None:
    """Let the frozen parts of the denoiser keep less, or as much as torch does.

    Layers of an adapter stay as they are: attach it first.
    """
    for module in denoiser.modules():
        kind = SLIM.get(type(module))
        if on and kind is not None and kind.suits(module):
            module.__class__ = kind
        elif not on and type(module) in USUAL:
            module.__class__ = USUAL[type(module)]


class SlimConv2d(nn.Conv2d):
    @staticmethod
    def suits(module: nn.Conv2d) -> bool:
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        return frozen and module.padding_mode == "zeros" and isinstance(module.padding, tuple)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W']."""
        if _autocast(x) or x.dtype != self.weight.dtype:
            return super().forward(x)
        return Convolution.apply(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class SlimResnet(ResnetBlock2D):
    @staticmethod
    def suits(module: ResnetBlock2D) -> bool:
        usual = module.time_embedding_norm == "default" and not (module.up or module.down)
        return usual and isinstance(module.nonlinearity, nn.SiLU)

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: object, **kwargs: object) -> Tensor:
        """As in diffusers: input_tensor [B, in, H, W], temb [B, T] -> [B, out, H, W]."""
        if args or kwargs or _autocast(input_tensor):
            return super().forward(input_tensor, temb, *args, **kwargs)
        hidden = self.conv1(norm_silu(input_tensor, self.norm1))
        if self.time_emb_proj is not None:
            temb = self.time_emb_proj(temb if self.skip_time_act else F.silu(temb))[:, :, None, None]
        if temb is not None:
            hidden = hidden + temb
        hidden = self.conv2(self.dropout(norm_silu(hidden, self.norm2)))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        return (input_tensor + hidden) / self.output_scale_factor


class SlimGeglu(GEGLU):
    @staticmethod
    def suits(module: GEGLU) -> bool:
        return True

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        """[..., in] -> [..., out]: hidden * gelu(gate) [Shazeer 2020, "GLU variants improve transformer"]."""
        return Gate.apply(self.proj(hidden_states))


SLIM = {nn.Conv2d: SlimConv2d, ResnetBlock2D: SlimResnet, GEGLU: SlimGeglu}
USUAL = {kind: usual for usual, kind in SLIM.items()}


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """silu(norm(x)), x [B, C, H, W]."""
    if x.dtype != norm.weight.dtype or any(parameter.requires_grad for parameter in norm.parameters()):
        return F.silu(norm(x))
    return NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)


class Convolution(torch.autograd.Function):
    """conv2d with frozen weight and bias."""

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor | None, *how: object) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        shape = weight.view(-1)[0].expand(ctx.shape)  # the input's values are not looked at
        how = (stride, padding, dilation, False, [0], groups, (True, False, False))
        return torch.ops.aten.convolution_backward(grad, shape, weight, None, *how)[0], *(None,) * 6


class NormSilu(torch.autograd.Function):
    """silu(group_norm(x)) that keeps x."""

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        ctx.how = (len(x), x.shape[1], x[0, 0].numel(), groups)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *ctx.how, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.eps = eps
        return F.silu(y, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias = ctx.saved_tensors
        y, *_ = torch.native_group_norm(x, weight, bias, *ctx.how, ctx.eps)
        grad = torch.ops.aten.silu_backward(grad, y).contiguous(memory_format=_layout(x))  # read as x
        how = (*ctx.how, [True, False, False])
        return torch.ops.aten.native_group_norm_backward(grad, x, mean, rstd, weight, *how)[0], *(None,) * 4


class Gate(torch.autograd.Function):
    """hidden * gelu(gate) that keeps the two as they come, in one tensor."""

    @staticmethod
    def forward(ctx: object, projected: Tensor) -> Tensor:
        ctx.save_for_backward(projected)
        hidden, gate = projected.chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> Tensor:
        hidden, gate = ctx.saved_tensors[0].chunk(2, dim=-1)
        return torch.cat([grad * F.gelu(gate), torch.ops.aten.gelu_backward(grad * hidden, gate)], dim=-1)


def _layout(x: Tensor) -> torch.memory_format:
    """In which group_norm takes x: channels may come last on a CPU."""
    last = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)  # meta knows no autocast
