"""Frozen linear layers plus their LoRA as one differentiable function: one layer, or several with the same input."""

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
        return torch.ops.aten._unsafe_view.default(y, (*x.shape[:-1], weight.shape[0]))

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


class LoraLinears(torch.autograd.Function):
    """y_i = x W_i' + b_i + (x A_i') B_i' for n layers of one shape.

    W [n out, in], b [n out], A [n r, in] and B [n, out, r] are those of all layers. The products with W and A are one
    each, forward and backward, and those with B are batched.
    """

    @staticmethod
    def forward(
        ctx: object, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
    ) -> tuple[Tensor, ...]:
        """x [..., in] -> n times [..., out], columns of one matrix."""
        rows = x.reshape(-1, x.shape[-1])  # [..., in] -> [N, in]
        hidden = rows @ down.t()
        y = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        count = up.shape[0]
        _by_layer(y, count).baddbmm_(_by_layer(hidden, count), up.transpose(1, 2))
        ctx.save_for_backward(rows, hidden, weight, down, up)
        ctx.shape = x.shape
        return y.view(*x.shape[:-1], weight.shape[0]).chunk(count, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, weight, down, up = ctx.saved_tensors
        wants_x, _, _, wants_down, wants_up = ctx.needs_input_grad
        count = up.shape[0]
        grad = torch.cat([part.reshape(rows.shape[0], -1) for part in grads], dim=1)  # [N, n out]
        layers = _by_layer(grad, count)
        grad_up = torch.bmm(layers.transpose(1, 2), _by_layer(hidden, count)) if wants_up else None
        grad_x = grad_down = None
        if wants_x or wants_down:
            grad_hidden = torch.empty_like(hidden)  # [N, n r]
            torch.bmm(layers, up, out=_by_layer(grad_hidden, count))
            grad_down = grad_hidden.t() @ rows if wants_down else None
        if wants_x:
            grad_x = (grad @ weight).addmm_(grad_hidden, down).view(ctx.shape)
        return grad_x, None, None, grad_down, grad_up


def _by_layer(columns: Tensor, count: int) -> Tensor:
    """A view: [N, n d] -> [n, N, d]."""
    return columns.view(columns.shape[0], count, -1).transpose(0, 1)
