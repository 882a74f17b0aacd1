"""What kinds of devices there are, and which number format each computes fast. Imports no torch."""

UNTRIED = {  # kind -> whose it is
    "rocm": "AMD",
    "xpu": "Intel",
    "mps": "Apple",
}
BF16_CHIPS = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")  # matrix units for bf16, by AMD's ISA documents


def precision_of(kind: str, name: str = "", capability: tuple[int, ...] = (), chip: str = "") -> str:
    """fp32, bf16 or fp16: the format of a run whose precision is auto.

    Args:
        kind: cuda (NVIDIA), rocm (AMD), xpu (Intel), mps (Apple) or cpu.
        name: as the driver calls the card.
        capability: of an NVIDIA card.
        chip: of an AMD card: gfx1100.
    """
    if kind == "cuda" and capability < (8, 0):
        return "fp32" if "GTX 16" in name else "fp16"  # the GTX 16 computes NaN in fp16; Turing and Volta have no bf16
    if kind == "rocm":
        return "bf16" if chip.startswith(BF16_CHIPS) else "fp16"
    return "bf16" if kind in ("cuda", "xpu") else "fp32"  # a CPU's bf16 is fast only with AMX, and never more exact


def untried(kind: str) -> str:
    """The honest sentence about devices that Darkroom should run on, and that it has not been run on; "" for others."""
    if kind not in UNTRIED:
        return ""
    return f"Darkroom has not been tried on {UNTRIED[kind]} graphics. If a run fails, set memory.device to cpu."
