"""A frozen linear layer plus its LoRA as one differentiable function."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LoraLinear(torch.autograd.Function):
    """y = x W' + b + (x A') B', with A = down [r, in] and B = up [out, r], the scale already in B.

    Two matrix products more than the base forward and four more backward; every sum is done inside a product, so that
    nothing of output or input width is read twice. W and b are frozen and get no gradient.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        rows = x.reshape(-1, x.shape[-1])  # [..., in] -> [N, in]
        hidden = rows @ down.t()
        y = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        y.addmm_(hidden, up.t())
        ctx.save_for_backward(rows, hidden, weight, down, up)
        ctx.shape = x.shape
        # Not a plain view: autograd forbids changing a view made in here in place.
        return torch.ops.aten._unsafe_view.default(y, (*x.shape[:-1], len(weight)))

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, weight, down, up = ctx.saved_tensors
        wants_x, _, _, wants_down, wants_up = ctx.needs_input_grad
        grad = grad.reshape(-1, grad.shape[-1])
        grad_up = grad.t() @ hidden if wants_up else None
        grad_x = grad_down = None
        if wants_x or wants_down:
            grad_hidden = grad @ up
            grad_down = grad_hidden.t() @ rows if wants_down else None
        if wants_x:
            grad_x = (grad @ weight).addmm_(grad_hidden, down).view(ctx.shape)
        return grad_x, None, None, grad_down, grad_up
