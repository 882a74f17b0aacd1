"""The strength of each module, reckoned without its delta-W, is the norm of that delta-W."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.export import files
from trainers.export.contents import read_contents
from trainers.export.weigh import weigh

ALPHA = 3.0


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def tucker(t, a, b):
    return torch.einsum("ijkl,jm,in->nmkl", t, b, a)


UP, DOWN, WIDE = random(8, 2), random(2, 6), random(2, 6, 3, 3)
MID, CORE = random(2, 2, 3, 3), random(2, 2, 3, 3)
W1A, W1B, W2A, W2B = random(300, 2), random(2, 5), random(300, 2) + 1, random(2, 5) - 1
CASES = {  # tensors of a module -> its delta-W
    "LoRA": ({"lora_down.weight": DOWN, "lora_up.weight": UP}, ALPHA / 2 * UP @ DOWN),
    "LoCon": (
        {"lora_down.weight": WIDE, "lora_up.weight": UP[..., None, None]},
        ALPHA / 2 * UP @ WIDE.flatten(1),
    ),
    "Tucker": (
        {
            "lora_down.weight": DOWN[..., None, None],
            "lora_mid.weight": MID,
            "lora_up.weight": UP[..., None, None],
        },
        ALPHA / 2 * tucker(MID, UP.T, DOWN),
    ),
    "LoHa": (
        {"hada_w1_a": W1A[:100], "hada_w1_b": W1B, "hada_w2_a": W2A[:100], "hada_w2_b": W2B},
        ALPHA / 2 * (W1A[:100] @ W1B) * (W2A[:100] @ W2B),
    ),
    "LoHa, Tucker": (
        {f"hada_{n}": t for i in "12" for n, t in ((f"w{i}_a", UP.T), (f"w{i}_b", DOWN), (f"t{i}", CORE))},
        ALPHA / 2 * tucker(CORE, UP.T, DOWN) ** 2,
    ),
    "LoKr, full": ({"lokr_w1": W2B, "lokr_w2": UP}, torch.kron(W2B, UP)),
    "LoKr": (
        {"lokr_w1": W2B, "lokr_w2_a": UP, "lokr_w2_b": DOWN},
        ALPHA / 2 * torch.kron(W2B, UP @ DOWN),
    ),
    "full difference": ({"diff": WIDE}, WIDE),
}


def weights_of(tensors, tmp_path):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "a.safetensors")
    return weigh(tmp_path / "a.safetensors", read_contents(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("case", CASES)
def test_the_norm_is_that_of_the_whole_delta(case, tmp_path):
    parts, delta = CASES[case]
    tensors = {f"lora_unet_x.{part}": tensor.clone() for part, tensor in parts.items()}
    found = weights_of(tensors | {"lora_unet_x.alpha": torch.tensor(ALPHA)}, tmp_path)
    assert math.isclose(found.norms["lora_unet_x"], float(delta.norm()), rel_tol=1e-5)
    assert not found.broken and not found.zeros


def test_a_large_loha_is_reckoned_from_some_of_its_rows(tmp_path):
    a, b = torch.rand(1000, 4) + 0.5, torch.rand(4, 50) + 0.5
    tensors = {f"lora_unet_x.hada_w{i}_{side}": t.clone() for i in "12" for side, t in (("a", a), ("b", b))}
    found = weights_of(tensors, tmp_path)
    assert math.isclose(found.norms["lora_unet_x"], float(((a @ b) ** 2).norm()), rel_tol=0.05)


def test_what_needs_the_base_has_no_norm(tmp_path):
    found = weights_of({"lora_unet_x.oft_blocks": torch.zeros(4, 8, 8)}, tmp_path)
    assert found.norms == {"lora_unet_x": None}


def test_a_missing_alpha_means_scale_one(tmp_path):
    found = weights_of(files.pair("lora_unet_x", (8, 6), alpha=None), tmp_path)
    twice = weights_of(files.pair("lora_unet_x", (8, 6), alpha=4.0), tmp_path)
    assert math.isclose(2 * found.norms["lora_unet_x"], twice.norms["lora_unet_x"])
