"""An update means what the formulas of LyCORIS and of the papers say, on matrices small enough to check by hand."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from trainers.adapters.reading import read_modules
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights
from trainers.export.distance import allowed, apart, distance, norm

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def read(tensors: dict[str, Tensor], **told: object):
    """The one module of a file with these tensors."""
    (module,) = read_modules({f"m.{name}": tensor for name, tensor in tensors.items()}, **told).values()
    return module


def test_lora_is_up_times_down_by_hand():
    down = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    up = torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    # 2 / 2 * [[1, 2], [0, 3], [1, 3]], halved by alpha 1
    assert_close(LoraWeights(down, up, 1.0).delta(), torch.tensor([[0.5, 1.0], [0.0, 1.5], [0.5, 1.5]]))


def test_dora_keeps_directions_and_sets_sizes_by_hand():
    base = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    down, up = torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0], [0.0]])  # the first row becomes [3, 4], of size 5
    size = torch.tensor([[10.0], [2.0]])
    expected = torch.tensor([[6.0, 8.0], [0.0, 2.0]]) - base
    assert_close(DoraWeights(down, up, 1.0, size).delta(base), expected)


def test_dora_over_input_columns_divides_by_their_sizes():
    base, down, up = random(3, 2), random(1, 2), random(3, 1)
    size = torch.tensor([[1.0, 2.0]])
    merged = base + up @ down
    expected = torch.stack([merged[:, 0] / merged[:, 0].norm(), 2 * merged[:, 1] / merged[:, 1].norm()], 1) - base
    module = read({"lora_down.weight": down, "lora_up.weight": up, "dora_scale": size})
    assert not module.by_output
    assert_close(module.delta(base), expected)


def test_loha_is_the_entrywise_product_by_hand():
    ones = torch.ones(2, 1)
    module = LohaWeights(
        hada_w1_a=torch.tensor([[1.0], [2.0]]),
        hada_w1_b=torch.tensor([[3.0, 4.0]]),  # [[3, 4], [6, 8]]
        hada_w2_a=ones,
        hada_w2_b=torch.tensor([[1.0, 10.0]]),  # [[1, 10], [1, 10]]
        alpha=0.5,
    )
    assert_close(module.delta(), torch.tensor([[1.5, 20.0], [3.0, 40.0]]))


def test_loha_of_a_convolution_is_flat_over_its_inputs():
    one_a, one_b, two_a, two_b = random(4, 2), random(2, 27), random(4, 2), random(2, 27)
    module = read({"hada_w1_a": one_a, "hada_w1_b": one_b, "hada_w2_a": two_a, "hada_w2_b": two_b})
    expected = ((one_a @ one_b) * (two_a @ two_b)).reshape(4, 3, 3, 3)  # no alpha: scale 1
    assert_close(module.delta(torch.zeros(4, 3, 3, 3)), expected)


def test_loha_with_tuckers_core_is_rebuilt_as_lycoris_does():
    tensors = {f"hada_t{i}": random(2, 2, 3, 3) for i in (1, 2)}
    tensors |= {f"hada_w{i}_a": random(2, 4) for i in (1, 2)} | {f"hada_w{i}_b": random(2, 5) for i in (1, 2)}
    halves = [
        torch.einsum("ijkl,jr,ip->prkl", tensors[f"hada_t{i}"], tensors[f"hada_w{i}_b"], tensors[f"hada_w{i}_a"])
        for i in (1, 2)
    ]
    module = read(tensors | {"alpha": torch.tensor(3.0)})
    assert_close(module.delta(), 1.5 * halves[0] * halves[1])
    assert module.fitted((4, 5, 3, 3)) is module and module.fitted((4, 5, 1, 1)) is None


def test_lora_with_tuckers_core_is_a_plain_lora_of_the_same_rank():
    down, mid, up = random(2, 5, 1, 1), random(2, 2, 3, 3), random(4, 2, 1, 1)
    module = read({"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(1.0)})
    expected = torch.einsum("ijkl,pi,jr->prkl", mid, up.flatten(1), down.flatten(1))
    assert type(module) is LoraWeights and module.rank == 2
    assert_close(module.delta(), expected / 2)


def test_lokr_is_a_kronecker_product_by_hand():
    w1 = torch.tensor([[1.0, 2.0]])
    w2 = torch.tensor([[1.0], [3.0]])
    module = read({"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(8.0)})
    assert_close(module.delta(), torch.tensor([[1.0, 2.0], [3.0, 6.0]]))  # both whole: scale 1 whatever alpha


def test_lokr_is_scaled_by_the_rank_of_a_factored_side():
    w1, a, b = random(2, 3), random(4, 2), random(2, 5)
    module = read({"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)})
    assert_close(module.delta(), torch.kron(w1, a @ b) / 2)
    first = read({"lokr_w1_a": random(2, 4), "lokr_w1_b": random(4, 3), "lokr_w2": random(4, 5)})
    assert first.rank == 4 and first.scale == 1
    assert_close(first.delta(), torch.kron(first.lokr_w1_a @ first.lokr_w1_b, first.lokr_w2))


@pytest.mark.parametrize("core", [False, True], ids=["flat", "tucker"])
def test_lokr_of_a_convolution(core):
    w1 = random(2, 3)
    if core:
        t2, a, b = random(2, 2, 3, 3), random(2, 4), random(2, 5)
        w2 = torch.einsum("ijkl,ip,jr->prkl", t2, a, b).contiguous()
        module = read({"lokr_w1": w1, "lokr_t2": t2, "lokr_w2_a": a, "lokr_w2_b": b})
    else:
        a, b = random(4, 2), random(2, 45)
        w2 = (a @ b).reshape(4, 5, 3, 3)
        module = read({"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b})
    expected = torch.kron(w1[:, :, None, None], w2)
    base = torch.zeros(8, 15, 3, 3)
    assert_close(module.delta(base), expected)
    assert module.fitted(base.shape) is module and module.fitted((8, 16, 3, 3)) is None


def test_a_whole_lokr_of_peft_keeps_its_scale_in_files():
    w1, w2 = random(2, 3), random(4, 5)
    trained = LokrWeights(alpha=0.25, lokr_w1=w1, lokr_w2=w2)  # alpha / rank of the layer
    assert_close(trained.delta(), torch.kron(w1, w2) / 4)
    file = trained.stored(torch.float32)
    assert_close(torch.kron(file["lokr_w1"], file["lokr_w2"]), trained.delta())  # as a reader with scale 1 has it
    assert_close(read(file).delta(), trained.delta())
    config = {"r": 8, "alpha": 2, "rank_pattern": {}, "alpha_pattern": {}}  # peft scales by 2 / 8 all the same
    named = {"base_model.model.a.lokr_w1": w1, "base_model.model.a.lokr_w2": w2}
    (in_peft,) = read_modules(named, peft_config=config).values()
    assert_close(in_peft.delta(), trained.delta())


@pytest.mark.parametrize(
    "tensors",
    [
        {"lora_down.weight": torch.ones(2, 3)},
        {"hada_w1_a": torch.ones(3, 2), "hada_w1_b": torch.ones(2, 3)},
        {f"hada_w{i}_{s}": torch.ones(3, 2) for i in (1, 2) for s in "ab"},  # a and b do not go together
        {"lokr_w1": torch.ones(2, 2)},
        {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(4)},
        {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(4, 2), "lokr_w2_b": torch.ones(3, 4)},
        {"alpha": torch.tensor(1.0)},
        {"dora_scale": torch.ones(3, 1)},
    ],
)
def test_tensors_that_make_no_update_are_no_module(tensors):
    assert read_modules({f"m.{name}": tensor for name, tensor in tensors.items()}) == {}


MODULES = {
    "lora": LoraWeights(random(2, 6), random(5, 2), 1.0),
    "dora": DoraWeights(random(2, 6), random(5, 2), 1.0, random(5, 1).abs()),
    "loha": LohaWeights(random(5, 2), random(2, 6), random(5, 2), random(2, 6), 1.0),
    "lokr": LokrWeights(1.0, lokr_w1=random(2, 3), lokr_w2_a=random(4, 2), lokr_w2_b=random(2, 5)),
    "whole lokr": LokrWeights(0.3, lokr_w1=random(2, 3), lokr_w2=random(4, 5)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MODULES)
def test_rounding_stays_within_what_is_allowed_and_other_changes_do_not(kind, dtype):
    trained = MODULES[kind]
    back = read(trained.stored(dtype))
    assert within(trained, back, dtype) and all(allowed(one, dtype) < 0.1 * norm(one) for one in apart(trained))
    doubled = read({**trained.stored(dtype), "alpha": torch.tensor(2.0)}) if kind != "whole lokr" else back
    assert kind == "whole lokr" or not within(trained, doubled, dtype)
    for name, tensor in trained.stored(dtype).items():
        assert name == "alpha" or not within(trained, read(trained.stored(dtype) | {name: 1.5 * tensor}), dtype), name


def within(trained, other, dtype: torch.dtype) -> bool:
    pairs = zip(apart(trained), apart(other), strict=True)
    return all(distance(one, read) <= allowed(one, dtype) for one, read in pairs)


@pytest.mark.parametrize("kind", MODULES)
def test_the_same_update_under_another_alpha(kind):
    base = random(5, 6)
    module = MODULES[kind]
    base = base if "lokr" not in kind else random(8, 15)
    assert_close(module.rescaled(4.0).delta(base), module.delta(base))
    assert module.rescaled(4.0).alpha == 4.0
