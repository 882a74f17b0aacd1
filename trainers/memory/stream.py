"""Weight streaming: frozen weights of a denoiser's blocks wait elsewhere, and are there only while their block runs.

For a GPU they wait in pinned host memory, and while one block computes, the next one's are copied on a side stream;
in the backward pass the blocks come in reverse order. For a CPU they wait in the base's own file, and are read again.
Streamed blocks are checkpointed: their weights are needed only while they run, forward and again backward. All of a
block's weights are one piece of memory, so that one copy brings them. On a CPU it is the same piece for all blocks:
otherwise a step of SD 1.5 at 256 px took 6.0 s in place of 5.0 (two cores of an Intel Xeon). Trained weights stay.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainers import devices
from trainers.adapters.siblings import NAMES
from trainers.families.residence import bring, is_away, is_original
from trainers.families.weights import Source
from trainers.memory.units import blocks, recompute
from trainers.waiting import waiting

ALIGNED = 64  # bytes: where kernels like a tensor to begin
SMALL = 1 << 20  # bytes of pinned memory whose rounding up does not matter
# On a CPU what was freed is handed back to the system before every so many blocks of a backward pass, which then takes
# 0.9 s longer, and 1.32 GB there in place of 1.47 (1.38 are counted); with four pictures up to 1.75 and 2.08 (1.71).
HANDED_BACK = 2


@dataclass(frozen=True)
class Weight:
    """One weight of a block, and where it lies in the block's memory."""

    owner: nn.Module
    name: str  # in its owner
    shape: torch.Size
    dtype: torch.dtype
    start: int  # bytes

    def of(self, buffer: Tensor) -> Tensor:
        """A view of the block's memory, uint8 [bytes]."""
        size = self.shape.numel() * self.dtype.itemsize
        return buffer[self.start : self.start + size].view(self.dtype).view(self.shape)


def powers(size: int) -> list[int]:
    """Powers of two that add up to `size`, the largest first; what is left is at most SMALL."""
    found = []
    while size > SMALL:
        found.append(1 << (size.bit_length() - 1))
        size -= found[-1]
    return [*found, size] if size or not found else found


class Block:
    """The weights of one block, which wait in host memory; the copy for a GPU is pinned."""

    def __init__(self, module: nn.Module, device: torch.device):
        self.weights, self.nbytes = arrange(module)
        self.device = device
        self.host = self._store()
        self.blanks = []
        for weight in self.weights:
            read = partial(self.read, weight)
            self.blanks.append(waiting(weight.shape, weight.dtype, device, read))
        self.take_away()

    def load(self, buffer: Tensor) -> Tensor:
        """Fill memory on the device, uint8 [bytes]."""
        for place, piece in zip(buffer.split([len(piece) for piece in self.host]), self.host, strict=True):
            place.copy_(piece, non_blocking=devices.copies_aside(self.device))
        return buffer

    def read(self, weight: Weight) -> Tensor:
        start, found = 0, []
        end = weight.start + weight.shape.numel() * weight.dtype.itemsize
        for piece in self.host:
            part = piece[max(0, weight.start - start) : max(0, end - start)]
            found += [part] if len(part) else []
            start += len(piece)
        return torch.cat(found).view(weight.dtype).view(weight.shape).to(self.device)

    def put(self, buffer: Tensor) -> None:
        """Make this memory the weights. Whatever keeps one of them for the backward pass keeps it all."""
        for weight in self.weights:
            weight.owner._parameters[weight.name] = nn.Parameter(weight.of(buffer), requires_grad=False)

    def take_away(self) -> None:
        for weight, blank in zip(self.weights, self.blanks, strict=True):
            weight.owner._parameters[weight.name] = blank

    def _store(self) -> list[Tensor]:
        """The weights, uint8 [bytes] in pieces, the first ones of powers of two.

        torch rounds what is pinned up to the next one [CachingHostAllocator.h], which was up to twice a whole block.
        """
        whole = torch.empty(self.nbytes, dtype=torch.uint8)
        for weight in self.weights:
            weight.of(whole).copy_(weight.owner._parameters[weight.name])
        pieces = whole.split(powers(self.nbytes))
        return [piece.pin_memory() for piece in pieces] if self.device.type == "cuda" else list(pieces)


class BlockOfFile(Block):
    """The weights of one block on a CPU, which wait in the base's file."""

    def __init__(self, module: nn.Module, path: str, source: Source):
        self.source = source
        self.keys = {(m, name): f"{path}.{key}" for key, m, name in _named(module)}
        super().__init__(module, torch.device("cpu"))

    def load(self, buffer: Tensor) -> Tensor:
        for weight in self.weights:
            self.source.copy(self.keys[weight.owner, weight.name], weight.of(buffer))
        return buffer

    def read(self, weight: Weight) -> Tensor:
        return self.source.take(self.keys[weight.owner, weight.name], mapped=False).reshape(weight.shape)

    def _store(self) -> list[Tensor]:
        return []


class Stream:
    """Brings the weights of blocks, each while it runs, and the next one's before that where a GPU copies beside."""

    def __init__(self, device: torch.device):
        self.device = device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.ahead = self.side is not None
        self.largest = 0  # bytes of a block
        self.spare: Tensor | None = None  # the memory of the block before, where the next one's comes after it
        self.blocks: dict[str, tuple[nn.Module, Block]] = {}  # by their paths
        self.run_again = 0  # blocks in the backward pass
        # The block that ran after each, forward and again backward: known from the first pass on. What stands before
        # the first trained weight does not run again.
        self.after: dict[bool, dict[Block, Block]] = {False: {}, True: {}}
        self.last: dict[bool, Block | None] = {False: None, True: None}
        self.coming: tuple[Block, Tensor, torch.cuda.Event | None] | None = None

    def begin(self, *_: object) -> None:
        """A forward pass of the denoiser begins."""
        self.last = {False: None, True: None}
        self.run_again = 0
        self._hand_back()

    def add(self, path: str, module: nn.Module, block: Block) -> None:
        """Let the weights of this block come and go."""
        self.blocks[path] = module, block
        self.largest = max(self.largest, block.nbytes)
        module.present = partial(self.present, block)

    def keep(self, paths: Collection[str]) -> None:
        """Bring the weights of these blocks for good, between two steps; the blocks stay checkpointed."""
        for path in paths:
            module, block = self.blocks[path]
            block.put(block.load(torch.empty(block.nbytes, dtype=torch.uint8, device=self.device)))
            del module.present, self.blocks[path]
        self.after, self.coming = {False: {}, True: {}}, None  # what comes after what is learnt anew

    @contextmanager
    def present(self, block: Block, again: bool) -> Iterator[None]:
        """Inside, the block has its weights. `again`: in the backward pass, where the blocks run in reverse order."""
        if again and self.run_again % HANDED_BACK == 0:
            self._hand_back()
        self.run_again += again
        buffer = self._arrived(block)
        if buffer is None:
            buffer = block.load(self._memory(block))
        if self.last[again] is not None:
            self.after[again][self.last[again]] = block
        self.last[again] = block
        if self.ahead and block in self.after[again]:
            self._fetch(self.after[again][block])
        block.put(buffer)
        kept = None if self.ahead else buffer._base
        del buffer  # it goes with the last that needs it
        try:
            yield
        finally:
            block.take_away()
            self.spare = kept

    def _memory(self, block: Block) -> Tensor:
        if self.ahead:
            return torch.empty(block.nbytes, dtype=torch.uint8, device=self.device)
        memory, self.spare = self.spare, None
        if memory is None:  # the first block, or one within another
            memory = torch.empty(self.largest, dtype=torch.uint8, device=self.device)
        torch.autograd.graph.increment_version(memory)  # whoever needs what was in it for a backward pass hears of it
        return memory[: block.nbytes]

    def _hand_back(self) -> None:
        if self.device.type == "cpu":
            devices.hand_back()

    def _fetch(self, block: Block) -> None:
        """Begin to copy. The memory is the computing stream's, which waits for the copy before it uses or frees it."""
        buffer = self._memory(block)
        if self.side is None:
            self.coming = block, block.load(buffer), None
            return
        self.side.wait_stream(torch.cuda.current_stream(self.device))  # it may be in use until here
        with torch.cuda.stream(self.side):
            block.load(buffer)
            self.coming = block, buffer, self.side.record_event()

    def _arrived(self, block: Block) -> Tensor | None:
        """What was begun, if it is this block's; dropped if it is another's."""
        if self.coming is None:
            return None
        expected, buffer, copied = self.coming
        self.coming = None
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied)
        return buffer if expected is block else None


def stream(denoiser: nn.Module, paths: Collection[str], device: torch.device) -> Stream:
    """Let the weights of the blocks at these paths come and go from now on; all else is brought to `device`.

    An adapter comes on the denoiser afterwards. What is quantised must be so already, and waits in host memory.
    """
    from_file, found = device.type == "cpu" and is_original(denoiser), Stream(device)
    if not from_file:
        bring(denoiser, torch.device("cpu"))
    keys: list[str] = []
    for path in paths:
        module = denoiser.get_submodule(path)
        block = BlockOfFile(module, path, denoiser.source) if from_file else Block(module, device)
        found.add(path, module, block)
        keys += block.keys.values() if from_file else ()
    recompute(denoiser, paths)
    if is_away(denoiser):
        # Not the pages of a file, in which a weight may begin anywhere: a kernel's last bits depend on that, and a
        # block that stays is to have those of one that comes and goes.
        denoiser.source.fill(denoiser, device, mapped=False, without=keys)
    denoiser.to(device)
    denoiser.register_forward_pre_hook(found.begin)
    return found


def block_bytes(denoiser: nn.Module) -> dict[str, int]:
    """The path of every block -> bytes of its frozen weights."""
    return {path: arrange(denoiser.get_submodule(path))[1] for path in blocks(denoiser)}


def arrange(block: nn.Module) -> tuple[list[Weight], int]:
    """The frozen weights of a block in the order in which they lie in memory, and the bytes of all.

    Layers that may be computed together (adapters/siblings.py) lie side by side.
    """
    together: list[list[tuple[nn.Module, str]]] = []
    for parent in block.modules():
        for names in NAMES:
            layers = [layer for name in names if type(layer := getattr(parent, name, None)) is nn.Linear]
            together += [[(layer, leaf) for layer in layers] for leaf in ("weight", "bias")]
    together += [[(module, name)] for _, module, name in _named(block)]
    weights: dict[tuple[nn.Module, str], Weight] = {}
    end = 0
    for run in together:
        end += -end % ALIGNED
        for owner, name in run:
            parameter = owner._parameters[name]
            if (owner, name) not in weights and parameter is not None and not parameter.requires_grad:
                weights[owner, name] = Weight(owner, name, parameter.shape, parameter.dtype, end)
                end += parameter.nbytes
    return list(weights.values()), end


def _named(block: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(key in the state dict, module, name) of every parameter."""
    for path, module in block.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield (f"{path}.{name}" if path else name), module, name
