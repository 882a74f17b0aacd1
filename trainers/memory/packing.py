"""Weight matrices in 8 or 4 bits a number, and back.

What is stored is integers throughout, scales as their bits, so that no change of a model's dtype can touch them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # numbers that share a scale in NF4
# NF4's 16 values: quantiles of the normal distribution, scaled to -1..1, with 0 among them [Dettmers et al. 2023,
# "QLoRA", appendix E].
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
WIDE = {2: torch.int32, 4: torch.int64}  # as wide as two numbers of so many bytes
SMALLEST = 2.0**-24  # above 0 in fp16


class Int8:
    """A row's largest magnitude is 127: 8 bits a number, and 32 a row.

    fp8 with a scale for each row (e4m3) takes as much and rounds more: a normal [1280, 1280] by 2.6 % of its norm, and
    by 0.8 % here.
    """

    @staticmethod
    def pack(weight: Tensor) -> tuple[Tensor, ...]:
        """[out, in] -> codes int8 [out, in], the bits of an fp32 scale for each row [out]."""
        weight = weight.float()
        scale = weight.abs().amax(dim=1) / 127
        codes = (weight / scale.clamp_min(SMALLEST / 127)[:, None]).round().to(torch.int8)
        return codes, scale.view(torch.int32)

    @staticmethod
    def unpack(packed: tuple[Tensor, ...], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, scale = packed
        return codes.to(dtype).mul_(scale.view(torch.float32)[:, None])  # integers to 127 are exact in every dtype


class Nf4:
    """Each number is one of 16 levels, times the largest magnitude among its 64: 4.25 bits a number.

    That magnitude is rounded to fp16. Quantising it again, as QLoRA does, would save an eighth of a bit.
    """

    @staticmethod
    def pack(weight: Tensor) -> tuple[Tensor, ...]:
        """[out, in], read row by row -> codes uint8 [blocks * 32], two in a byte; scales int16 [blocks]; the table.

        The table [256, 2] has what each byte stands for, as the bits of fp32.
        """
        flat = F.pad(weight.float().flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
        scale = flat.abs().amax(dim=1).to(torch.float16)
        levels = torch.tensor(LEVELS, device=flat.device)
        middles = (levels[1:] + levels[:-1]) / 2
        unit = flat / scale.float().clamp_min(SMALLEST)[:, None]
        codes = torch.bucketize(unit, middles, out_int32=True).to(torch.uint8).view(-1, 2)
        table = torch.cartesian_prod(levels, levels)
        return codes[:, 0] * 16 + codes[:, 1], scale.view(torch.int16), table.view(torch.int32)

    @staticmethod
    def unpack(packed: tuple[Tensor, ...], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, scale, table = packed
        # Both numbers of a byte are looked up as one wide integer: a quarter of the time of looking up a row of two.
        pairs = table.view(torch.float32).to(dtype).view(WIDE[dtype.itemsize]).flatten()
        values = pairs.index_select(0, codes.int()).view(dtype)  # [blocks * 32] -> [blocks * 64]
        values = values.view(-1, BLOCK).mul_(scale.view(torch.float16).float()[:, None])
        return values.view(-1)[: shape.numel()].view(shape)


FORMS = {"int8": Int8, "nf4": Nf4}
