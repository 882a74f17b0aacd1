"""Weights that come block by block: the same results to the bit, and few bytes at any moment."""

import weakref

import pytest
import torch

from tests.memory.tiny_step import adapted, folder_of, gradients, told
from tests.tiny_families import write_checkpoint
from trainers.adapters.siblings import JOINS
from trainers.choices import ADAPTERS as KINDS
from trainers.config import ModelConfig, TrainConfig
from trainers.data.cache import identity
from trainers.families.registry import FAMILIES
from trainers.families.residence import is_original, lent
from trainers.families.sd3 import SD3
from trainers.memory import stream as streaming
from trainers.memory.decide import resident
from trainers.memory.meter import Meter
from trainers.memory.packed import pack
from trainers.memory.saving import PLAIN, Saving, apply
from trainers.memory.spans import Span, most, spanned
from trainers.memory.stream import arrange, block_bytes, stream
from trainers.memory.units import blocks, streamed
from trainers.waiting import real, waits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: folder_of(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def loaded(family: str, folder, deferred: bool = False, dtype: torch.dtype = torch.float32):
    kind = FAMILIES[family]
    return kind, kind.load(ModelConfig(base=str(folder), family=family), dtype, deferred)


def from_file(family: str, folder, dtype: torch.dtype = torch.float32):
    """All of its blocks streamed from the file, before anything was read."""
    kind, components = loaded(family, folder, deferred=True, dtype=dtype)
    for encoder in components.text_encoders:
        encoder.source.fill(encoder, CPU, mapped=True)
    return kind, components, stream(components.denoiser, blocks(components.denoiser), CPU)


def from_host(family: str, folder):
    """As for a GPU: blocks wait in host memory, and the next one's come while one computes."""
    kind, components = loaded(family, folder)
    components.denoiser.source = None
    found = stream(components.denoiser, blocks(components.denoiser), CPU)
    found.ahead = True
    return kind, components, found


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch):
    """So that weights of tiny models too lie in several pieces of host memory."""
    monkeypatch.setattr(streaming, "SMALL", 100)


@pytest.mark.parametrize("size", [0, 1, 100, 101, 4096, 123_456, 2**20 + 1])
def test_host_memory_is_asked_for_in_powers_of_two(size):
    sizes = streaming.powers(size)
    assert sum(sizes) == size
    assert all(one & (one - 1) == 0 or one <= 100 for one in sizes)  # of the last one little is rounded up


def the_same(one, other) -> bool:
    return all(a is b if a is None else torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("place", [from_file, from_host])
@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_and_gradients_are_those_of_weights_that_stay_to_the_bit(family, place, folders):
    plain = adapted(*loaded(family, folders[family]))
    kind, components, _ = place(family, folders[family])
    model = adapted(kind, components)
    wanted = gradients(*plain)
    assert any(grad.abs().max() > 0 for grad in wanted[1:])
    for saving in (PLAIN, Saving(), Saving(blocks(components.denoiser), offload=True)):
        apply(components.denoiser, saving)
        assert the_same(wanted, gradients(*model)), saving


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_type_learns_the_same_with_dropout_on(kind, folders):
    how = {"type": kind, "dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.1}
    plain = adapted(*loaded("sdxl", folders["sdxl"]), **how)
    family, components, _ = from_file("sdxl", folders["sdxl"])
    model = adapted(family, components, **how)
    apply(components.denoiser, Saving(), draws=True)
    assert the_same(gradients(*plain), gradients(*model))


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_quantised_blocks_are_streamed_from_host_memory(form, folders):
    plain, waiting = loaded("sd3", folders["sd3"]), loaded("sd3", folders["sd3"])
    for _, components in (plain, waiting):
        pack(components.denoiser, form)
    stream(waiting[1].denoiser, blocks(waiting[1].denoiser), CPU).ahead = True
    assert the_same(gradients(*adapted(*plain)), gradients(*adapted(*waiting)))


def test_what_waits_is_converted_when_it_comes(folders):
    kind, components, _ = from_file("sd15", folders["sd15"], torch.bfloat16)
    plain = loaded("sd15", folders["sd15"], dtype=torch.bfloat16)
    layer = components.denoiser.down_blocks[0].resnets[0].conv1.weight
    assert waits(layer) and layer.dtype == torch.bfloat16 and layer.isnan().all()
    assert torch.equal(real(layer), plain[1].denoiser.down_blocks[0].resnets[0].conv1.weight)


def test_layers_that_are_computed_together_lie_side_by_side(folders):
    _, components = loaded("sd3", folders["sd3"])
    block = components.denoiser.transformer_blocks[0]
    places = {(weight.owner, weight.name): weight for weight in arrange(block)[0]}
    for names in (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")):
        for leaf in ("weight", "bias"):
            found = [places[getattr(block.attn, name), leaf] for name in names]
            sizes = [place.shape.numel() * place.dtype.itemsize for place in found]
            assert found[1].start == found[0].start + sizes[0] and found[2].start == found[1].start + sizes[1]


class Watched:
    """The memory that blocks have at any moment, until the last that keeps it lets go."""

    def __init__(self, monkeypatch):
        self.now, self.most, self.bytes = set(), 0, 0
        usual = streaming.Stream._memory

        def memory(own, block):
            buffer = usual(own, block)
            place = buffer.data_ptr()
            if place not in self.now:
                self.now.add(place)
                weakref.finalize(buffer.untyped_storage(), self.now.discard, place)
            self.most = max(self.most, len(self.now))
            self.bytes += block.nbytes
            return buffer

        monkeypatch.setattr(streaming.Stream, "_memory", memory)


@pytest.mark.parametrize(("place", "most", "left"), [(from_file, 1, 1), (from_host, 2, 0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_more_blocks_are_there_than_the_one_that_runs_and_the_one_that_comes(
    family, place, most, left, folders, monkeypatch
):
    kind, components, _ = place(family, folders[family])
    model = adapted(kind, components)
    watched = Watched(monkeypatch)
    for _ in range(2):
        gradients(*model)
        assert watched.most <= most and len(watched.now) == left  # on a CPU the same memory serves them all
    every = sum(block_bytes(components.denoiser).values())
    assert watched.bytes <= 4 * every  # two steps, forward and backward: nothing comes in vain


def test_a_weight_that_is_needed_after_its_block_is_missed_and_not_taken_for_another(folders):
    _, components, _ = from_file("sd15", folders["sd15"])
    first, second = (components.denoiser.get_submodule(path) for path in blocks(components.denoiser)[:2])
    with first.present(again=False):
        weight = next(parameter for parameter in first.parameters() if parameter.ndim == 1)
        loss = (weight * torch.ones_like(weight).requires_grad_()).sum()
    with second.present(again=False), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_streamed_step_holds_what_is_counted(family, folders):
    plain = adapted(*loaded(family, folders[family]))
    sizes = block_bytes(plain[1].denoiser)
    apply(plain[1].denoiser, Saving(blocks(plain[1].denoiser)))
    held = []
    for kind, components, adapter in (plain, adapted(*from_file(family, folders[family])[:2])):
        text = told(kind, components)
        apply(components.denoiser, Saving(blocks(components.denoiser)))
        with Meter() as meter:
            gradients(kind, components, adapter, text)
        held.append(meter.peak)
    there = max(sizes.values())
    assert held[0] < held[1] <= held[0] + 2 * there  # on its way from the file a weight is there twice


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_whose_next_block_comes_beside_holds_what_is_counted(family, folders):
    """As on a GPU: the weights of the block that runs and of the next one, where they take the most with all else."""
    plain, come = adapted(*loaded(family, folders[family])), adapted(*from_host(family, folders[family])[:2])
    text = told(*plain[:2])
    for _, components, _ in (plain, come):
        apply(components.denoiser, Saving(blocks(components.denoiser)))
    sizes = block_bytes(plain[1].denoiser)
    with Meter() as meter, spanned(plain[1].denoiser, meter) as spans:
        gradients(*plain, text)
    assert max(span.peak for span in spans) == meter.peak
    gradients(*come, text)  # the order becomes known
    with Meter() as held:
        gradients(*come, text)
    counted = most(spans, sizes, torch.device("cuda"))
    assert held.peak == pytest.approx(counted, rel=0.02)
    assert meter.peak < counted <= meter.peak + sum(sorted(sizes.values())[-2:])
    assert most(spans, sizes, CPU) == meter.peak + max(sizes.values())


def test_a_blocks_weights_come_while_the_streamed_one_before_it_and_those_between_run():
    peaks = (("", False, 5), ("a", False, 10), ("b", False, 10), ("c", False, 10), ("c", True, 90), ("a", True, 10))
    spans, card = [Span(*one) for one in peaks], torch.device("cuda")
    assert most(spans, {"a": 100, "c": 30}, card) == max(5, 10 + 100 + 30, 10 + 30, 10 + 30, 90 + 30 + 100, 10 + 100)
    assert most(spans, {"a": 100}, card) == 10 + 100  # in the backward pass nothing comes before it
    assert most(spans, {"b": 3}, card) == 90
    assert most(spans, {"a": 100, "c": 30}, CPU) == 90 + 100


def test_weights_wait_and_pictures_are_drawn_as_ever(folders):
    family, components, _ = from_file("sdxl", folders["sdxl"])
    plain = loaded("sdxl", folders["sdxl"])[1]
    for weight in [*plain.denoiser.parameters(), *components.denoiser.parameters()]:
        if not waits(weight):  # at a place in the file that is no multiple of 64, sums are in another order
            weight.data = weight.data.clone()
    text, latents = told(family, components, 1), torch.ones(1, 4, 8, 8)
    with torch.no_grad(), lent([components.denoiser], CPU):
        found = family.denoise(components.denoiser, latents, torch.tensor([3]), text)
        assert torch.equal(found, family.denoise(plain.denoiser, latents, torch.tensor([3]), text))
    assert set(streamed(components.denoiser)) == set(blocks(components.denoiser))
    for path in blocks(components.denoiser):
        block = components.denoiser.get_submodule(path)
        assert all(waits(weight) and weight.untyped_storage().nbytes() <= 4 for weight in block.parameters())


def test_weights_that_wait_leave_their_room_to_the_decoding_of_pictures(folders):
    _, components, _ = from_file("sdxl", folders["sdxl"])
    plain, config = loaded("sdxl", folders["sdxl"])[1], TrainConfig()
    whole = [plain.denoiser.get_submodule(path) for path in blocks(plain.denoiser)]
    gone = sum(weight.nbytes for block in whole for weight in block.parameters())
    assert 0 < resident(components, config) == resident(plain, config) - gone


def test_a_base_is_known_by_its_weights_wherever_they_wait(folders):
    _, components, _ = from_file("sdxl", folders["sdxl"])
    assert is_original(components.denoiser)
    assert identity(components.denoiser) == identity(loaded("sdxl", folders["sdxl"])[1].denoiser)


def test_the_others_stay_where_some_blocks_are_streamed(folders):
    plain = adapted(*loaded("sdxl", folders["sdxl"]))
    family, components = loaded("sdxl", folders["sdxl"])
    some = blocks(components.denoiser)[::3]
    stream(components.denoiser, some, CPU)
    model = adapted(family, components)
    apply(components.denoiser, Saving())
    assert streamed(components.denoiser) == some
    assert the_same(gradients(*plain), gradients(*model))


@pytest.mark.parametrize("place", [from_file, from_host])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_whose_weights_are_brought_for_good_compute_the_same_to_the_bit(family, place, folders):
    plain = adapted(*loaded(family, folders[family]))
    kind, components, found = place(family, folders[family])
    model = adapted(kind, components)
    apply(components.denoiser, Saving())
    wanted = gradients(*plain)
    assert the_same(wanted, gradients(*model))
    some = blocks(components.denoiser)[::2]
    found.keep(some)
    assert streamed(components.denoiser) == blocks(components.denoiser)[1::2]
    assert not any(waits(weight) for path in some for weight in components.denoiser.get_submodule(path).parameters())
    for _ in range(2):
        assert the_same(wanted, gradients(*model))


@pytest.mark.parametrize("targets", ["to_(q|v)$", "to_(k|v)$", "to_q$"])
def test_it_is_the_same_where_some_of_an_attentions_layers_are_adapted(targets, folders):
    plain = adapted(*loaded("sdxl", folders["sdxl"]), targets=targets)
    model = adapted(*from_file("sdxl", folders["sdxl"])[:2], targets=targets)
    for components in (plain[1], model[1]):
        apply(components.denoiser, Saving())
    for _ in range(JOINS + 1):
        assert the_same(gradients(*plain), gradients(*model))


def test_what_stays_takes_no_more_than_its_bytes(tmp_path, monkeypatch):
    """SD 3's single files have query, key and value in one piece."""
    folder = folder_of("sd3", tmp_path / "sd3.5-medium")
    file = write_checkpoint("sd3", folder, tmp_path / "base.safetensors")
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
    components = SD3.load(ModelConfig(base=str(file), family="sd3"), torch.float32, deferred=True)
    some = blocks(components.denoiser)[:1]
    stream(components.denoiser, some, CPU)
    stay = [weight for weight in components.denoiser.parameters() if not waits(weight)]
    assert stay and all(weight.untyped_storage().nbytes() == weight.nbytes for weight in stay)
