"""Counts what a training step asks of the machine: operator dispatches, host syncs and FLOPs."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

# These only rename memory: no kernel runs.
VIEWS = frozenset(
    "alias as_strided chunk detach diagonal expand permute reshape select slice split split_with_sizes squeeze t "
    "transpose unbind unfold unsqueeze view _unsafe_view _reshape_alias lift_fresh".split()
)
SYNCS = frozenset(["_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"])  # the host waits for a value


class DispatchCounter(TorchDispatchMode):
    """Counts non-view ATen operators and host syncs per phase (set `phase` as the step goes on)."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "forward"
        self.dispatches: Counter[str] = Counter()
        self.syncs = 0
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.overloadpacket.__name__
        if name in SYNCS:
            self.syncs += 1
        if name not in VIEWS:
            self.dispatches[self.phase] += 1
            self.by_name[name] += 1
        return func(*args, **(kwargs or {}))
