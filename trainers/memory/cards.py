"""Graphics cards by name: memory and half-precision rate, for those that are not here to be asked.

GB of memory, and TFLOPS of dense half-precision matrix products that sum in fp32, as the vendor states them. For
GeForce that is cores x boost clock x 2, the fp32 rate, times 2 from Ampere on (times 4 on Turing and the A series);
for data-centre cards half of what is advertised with sparsity. Nothing here was measured.
"""

import difflib
import re
from dataclasses import dataclass

from trainers.errors import UserError

HELD = 0.8  # GB that driver and desktop hold: assumed
REACHED = (0.14, 0.33)  # share of the sheet's rate: SDXL on a 3090 Ti and on a 3060, as their owners report it

BUS = (6e9, 25e9)  # bytes per second from host memory: what PCIe 3.0 x8 and 4.0 x16 leave of their rates; assumed


@dataclass(frozen=True)
class Card:
    name: str
    memory_gb: float
    tflops: float
    precision: str  # what training computes in there

    @property
    def free_gb(self) -> float:
        return self.memory_gb - HELD

    def seconds(self, flops: float, moved: float = 0) -> tuple[float, float]:
        """The least and the most that a step of so many operations is likely to take.

        `moved`: bytes that come from host memory meanwhile: at best beside the computing, at worst one after the other.
        """
        most, least = (flops / (share * self.tflops * 1e12) for share in REACHED)
        slow, fast = (moved / rate for rate in BUS)
        return max(least, fast), most + slow


CARDS = tuple(
    Card(*row)
    for row in (
        ("GTX 1660 6GB", 6, 5.0, "fp32"),  # fp32: its half precision gives NaN
        ("RTX 2060 6GB", 6, 25.8, "fp16"),
        ("RTX 2070 8GB", 8, 29.9, "fp16"),
        ("RTX 2080 Ti 11GB", 11, 53.8, "fp16"),
        ("T4 16GB", 16, 65.0, "fp16"),
        ("V100 16GB", 16, 125.0, "fp16"),
        ("RTX 3050 8GB", 8, 18.2, "bf16"),
        ("RTX 3060 12GB", 12, 25.5, "bf16"),
        ("RTX 3060 Ti 8GB", 8, 32.4, "bf16"),
        ("RTX 3070 8GB", 8, 40.6, "bf16"),
        ("RTX 3080 10GB", 10, 59.5, "bf16"),
        ("RTX 3080 12GB", 12, 61.3, "bf16"),
        ("RTX 3090 24GB", 24, 71.0, "bf16"),
        ("RTX 3090 Ti 24GB", 24, 80.0, "bf16"),
        ("RTX A4000 16GB", 16, 76.7, "bf16"),
        ("A100 40GB", 40, 312.0, "bf16"),
        ("A100 80GB", 80, 312.0, "bf16"),
        ("L4 24GB", 24, 121.0, "bf16"),
        ("L40S 48GB", 48, 362.0, "bf16"),
        ("RTX 4060 8GB", 8, 30.2, "bf16"),
        ("RTX 4060 Ti 8GB", 8, 44.1, "bf16"),
        ("RTX 4060 Ti 16GB", 16, 44.1, "bf16"),
        ("RTX 4070 12GB", 12, 58.3, "bf16"),
        ("RTX 4070 Ti 12GB", 12, 80.2, "bf16"),
        ("RTX 4070 Ti Super 16GB", 16, 88.2, "bf16"),
        ("RTX 4080 16GB", 16, 97.5, "bf16"),
        ("RTX 4090 24GB", 24, 165.2, "bf16"),
        ("RTX 5070 12GB", 12, 61.7, "bf16"),
        ("RTX 5070 Ti 16GB", 16, 87.9, "bf16"),
        ("RTX 5080 16GB", 16, 112.6, "bf16"),
        ("RTX 5090 32GB", 32, 209.5, "bf16"),
        ("H100 80GB", 80, 989.0, "bf16"),
        ("H200 141GB", 141, 989.0, "bf16"),
    )
)


def find_card(name: str) -> Card:
    """The card that goes by this name, without regard to case, spaces and maker; the memory may be left out.

    Raises:
        UserError: there is none, or several that differ in memory.
    """
    wanted = _plain(name)
    found = [card for card in CARDS if _plain(card.name) == wanted]
    found = found or [card for card in CARDS if _plain(re.sub(r" \d+GB$", "", card.name)) == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(card.name for card in found)
        raise UserError(f"There are several cards called {name}.", f"Say {names}.")
    near = difflib.get_close_matches(wanted, [_plain(card.name) for card in CARDS], 3, 0.5)
    names = [card.name for card in CARDS if _plain(card.name) in near] or [card.name for card in CARDS]
    raise UserError(f"No card called {name} is known.", f"Try {', '.join(names)}.")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|[^a-z0-9]", "", name.lower())
