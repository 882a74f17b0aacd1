"""Will it fit, and how long: the memory and the seconds of one training step, before a run starts.

Memory is counted on the meta device, where tensors have shapes and no storage: every allocation of a real forward and
backward pass is followed until it is freed. Seconds are measured with real steps where those are cheap and fit;
else they follow from the operation count and the speed of this device, or from the data sheet of another.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from trainers import memory, preview
from trainers.config import TrainConfig
from trainers.encoding import SOON
from trainers.families.base import Components, Family
from trainers.memory.aside import room_beside
from trainers.memory.cards import Card
from trainers.memory.decide import GB, Room, beside, free_gb, needed, told
from trainers.memory.drawing import ROWS, decoded_bytes, denoised
from trainers.memory.encoders import caption_bytes, picture_bytes, weight_bytes
from trainers.memory.fit import Fitted
from trainers.memory.meter import attending
from trainers.memory.packing import FORMS
from trainers.memory.saving import PLAIN, Saving
from trainers.pace import Clock, Pace, drawn, operations, pace, passes, preview_batch
from trainers.reckoned import CHEAP, reckon

SIDES = (768, 512, 384, 256)  # pixels that are tried where a run does not fit


@dataclass(frozen=True)
class Estimate:
    """What one optimizer step needs, and to encode what it shows; GB are 2^30 bytes."""

    peak_gb: float
    free_gb: float  # what the device has, less what others hold, or the budget where that is less
    weights_gb: float
    encoded_gb: float  # pictures and captions
    activations_gb: float  # and gradients
    adapter_gb: float  # masters, optimizer states, averages
    tflop: float
    pace: Pace | None  # None where it does not fit or the device is not here
    saved: str = ""  # what is given up for memory, in words and numbers
    instead: str = ""  # settings that would fit, where these do not
    more_gb: float = 0.0  # that libraries may take more than usual
    span: tuple[float, float] | None = None  # seconds per step at least and at most, on a card that is not here
    encoding_gb: float = 0.0  # at most, while what the cache does not have is encoded
    encoding: str = ""  # pictures or captions: what takes so much
    previews_gb: float = 0.0  # at most, while previews are drawn
    there_gb: float = float("inf")  # for both: no budget holds there
    late: bool = False  # whether pictures are encoded when a step first shows them

    @property
    def steps_fit(self) -> bool:
        return self.peak_gb + self.more_gb < self.free_gb

    @property
    def encoding_fits(self) -> bool:
        return self.encoding_gb + self.more_gb < self.there_gb

    @property
    def previews_fit(self) -> bool:
        return self.previews_gb + self.more_gb < self.there_gb

    @property
    def fits(self) -> bool:
        return self.steps_fit and self.encoding_fits and self.previews_fit


def estimate(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: memory.Plan,
    card: Card | None = None,
    clock: Clock = time.perf_counter,
    encoded: tuple[int, int] = (0, 0),
    known: tuple[int, int] = (0, 0),
    share: float = 1.0,
    before: Saving | None = None,
) -> Estimate:
    """Count a step; then time it where it fits. Leaves the components with an adapter on them: use them no further.

    Args:
        card: one that is not here. Nothing is timed then.
        clock: what tells the seconds.
        encoded: pictures, each mirrored one too, and captions.
        known: those of them that were encoded before.
        share: of a full batch's pixels that a batch has on average.
        before: how an earlier sitting of the run saved memory, which it keeps to.
    """
    device = torch.device("cuda") if card else plan.device
    free = card.free_gb if card else free_gb(device)
    left, fitted = needed(family, components, config, plan, device, free, encoded, before=before)
    peak = left.peak(fitted)
    flops = operations(config, fitted.count)
    missing = tuple(wanted - there for wanted, there in zip(encoded, known, strict=True))
    at_first, what = _encoding(family, components, config, plan, device, left, missing)
    need = Estimate(
        peak_gb=peak,
        free_gb=min(left.budget, free),
        weights_gb=left.weights - fitted.freed / GB,
        encoded_gb=left.held,
        activations_gb=fitted.count.peak / GB,
        adapter_gb=left.adapter,
        tflop=flops / 1e12,
        pace=None,
        saved=_saved(fitted, left, config, device),
        more_gb=left.more,
        span=card.seconds(flops * share, fitted.moved * passes(config)) if card else None,
        encoding_gb=at_first,
        encoding=what,
        there_gb=free,
        previews_gb=_previews(family, components, config, plan, device, left, fitted),
    )
    if not need.previews_fit and need.steps_fit and need.encoding_fits:
        return replace(need, instead="Lower preview.width and preview.height, or set preview.every = 0.")
    if not need.fits:
        return replace(need, instead=_instead(family, components, config, plan, device, free, encoded, missing))
    if card:
        return need
    on_cpu = device.type == "cpu"
    roughly = partial(reckon, family, components, config, plan, fitted)
    if on_cpu and flops >= CHEAP:
        found = roughly()
    else:
        dear = on_cpu and _dear(family, components, config, plan, fitted)
        found = pace(family, components, config, plan, clock, before, roughly if dear else None)
    late = on_cpu and missing[0] * found.encoded > SOON
    more = _beside(family, components, config, left, fitted) if late else None
    return replace(need, pace=found, peak_gb=peak + (more or 0.0) / GB, late=more is not None)


def _dear(family: Family, components: Components, config: TrainConfig, plan: memory.Plan, fitted: Fitted) -> bool:
    """Whether a sampling step of a preview would take a CPU long."""
    if not config.preview.every:
        return False
    if _times(components, config) <= 1:
        return ROWS * fitted.count.forward / config.at_once >= CHEAP
    return denoised(family, components, drawn(components, config), 1, plan.dtype).flops >= CHEAP


def _times(components: Components, config: TrainConfig) -> float:
    """How many times as many pixels a preview has as a training picture."""
    side = config.data.resolution or components.resolution
    return preview.larger(config.preview, side, side)


def _beside(family: Family, components: Components, config: TrainConfig, left: Room, fitted: Fitted) -> float | None:
    """Bytes that the peak is higher where pictures are encoded between steps (postponed.py); None: they are not."""
    takes, free = picture_bytes(family, components, config, torch.device("cpu")), left.free(fitted)
    vae = weight_bytes([components.vae])
    found = room_beside(components.denoiser, fitted.saving, free, takes, vae)
    if not found:
        return None
    most = max(vae if found.vae_stays else 0, takes - fitted.taken - fitted.freed)
    return max(0.0, most - found.gained)


def _previews(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: memory.Plan,
    device: torch.device,
    left: Room,
    fitted: Fitted,
) -> float:
    """GB that are taken while previews are drawn: denoised, which takes more than a step where they are larger."""
    if not config.preview.every:
        return 0.0
    latents = drawn(components, config)
    with attending(config.memory.attention):
        most = decoded_bytes(family, components, latents, device, left.free(fitted).between)
        if _times(components, config) > 1:
            together = preview_batch(config, components, checkpointing=bool(fitted.saving.recomputed))
            most = max(most, denoised(family, components, latents, together, plan.dtype).peak)
    return left.peak(fitted) + (most - fitted.count.peak) / GB


def _encoding(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: memory.Plan,
    device: torch.device,
    left: Room,
    missing: tuple[int, ...],
) -> tuple[float, str]:
    """The most GB that are taken before the loop, and to encode what: nothing of which nothing is missing."""
    pictures, captions = missing
    needs = {"": 0}
    if pictures:
        there = weight_bytes(components.text_encoders) if config.adapter.trains_text else 0
        needs["pictures"] = there + picture_bytes(family, components, config, device)
    if captions and (config.loss.preservation or not config.adapter.trains_text):
        needs["captions"] = caption_bytes(family, components, config, plan.dtype)
    what = max(needs, key=needs.__getitem__)
    return needs[what] / GB + left.held + beside(device) if what else 0.0, what


def _saved(fitted: Fitted, left: Room, config: TrainConfig, device: torch.device) -> str:
    if fitted.saving == PLAIN:
        return ""
    adjusted = told(fitted, left, config.memory, device)
    return f"{adjusted.what}: {adjusted.why}."


def _instead(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: memory.Plan,
    device: torch.device,
    free: float,
    encoded: tuple[int, int],
    missing: tuple[int, ...],
) -> str:
    """The first change of settings with which the run would fit, in words; "" where there is none."""
    if missing[1] and config.model.t5 and caption_bytes(family, components, config, plan.dtype) / GB > free:
        return "Leave model.t5 empty: T5 is the largest of the text encoders."
    for change in _smaller(config, components, device):
        changed = config.model_copy(
            update={section: getattr(config, section).model_copy(update=values) for section, values in change.items()}
        )
        left, fitted = needed(family, components, changed, plan, device, free, encoded)
        peak = left.peak(fitted)
        before, _ = _encoding(family, components, changed, plan, device, left, missing)
        drawing = _previews(family, components, changed, plan, device, left, fitted)
        if peak + left.more < min(left.budget, free) and max(before, drawing) + left.more < free:
            settings = [f"{s}.{key} = {value}" for s, values in change.items() for key, value in values.items()]
            return f"It would fit with {', '.join(settings)}: {max(peak, before, drawing):.1f} GB."
    return ""


def _smaller(
    config: TrainConfig, components: Components, device: torch.device
) -> Iterator[dict[str, dict[str, object]]]:
    """Changes that need less and less: checkpointing, streaming, single pictures, quantising, smaller pictures."""
    change: dict[str, dict[str, object]] = {}
    if config.memory.checkpointing == "none":
        change["memory"] = {"checkpointing": "auto"}
        yield dict(change)
    if config.memory.stream == "none":
        change["memory"] = {**change.get("memory", {}), "stream": "auto"}
        yield dict(change)
    if config.at_once > 1:
        change["memory"] = {**change.get("memory", {}), "parts": config.data.batch_size}
        yield dict(change)
    reads_again = device.type == "cpu" and config.memory.stream == "all"  # which a rounded base cannot
    if config.memory.quantize == "none" and config.adapter.type != "dora" and not reads_again:
        for form in FORMS:
            change["memory"] = {**change.get("memory", {}), "quantize": form}
            yield dict(change)
    for side in SIDES:
        if side < (config.data.resolution or components.resolution):
            change["data"] = {**change.get("data", {}), "resolution": side}
            yield dict(change)
