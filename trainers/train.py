"""The training recipe, top to bottom: read it like a story."""

import logging
import math
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from trainers import attention, checkpoint, devices, memory, optimizers, preview, recovery, thread_count, threads
from trainers.adapters.adapter import Adapter
from trainers.adapters.adapter_file import read_adapter, warm_start
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.tokens import require_word, start_tokens
from trainers.begun import begun
from trainers.capabilities import untried
from trainers.checkpoint import Position
from trainers.clock import awake
from trainers.compiling import compile_blocks
from trainers.config import AdapterConfig, TrainConfig
from trainers.control import END, LESS_MEMORY, NOTHING
from trainers.data.batches import Batches, split_validation
from trainers.data.buckets import plan as plan_crops
from trainers.data.cache import Cache
from trainers.data.examples import scan
from trainers.data.types import Problem
from trainers.encoding import encode_together
from trainers.errors import Crowded, EndedEarly, Overflowed, UserError
from trainers.events import Adjusted, Event, Finished, Phase, Started, Step, Stopped, Warned
from trainers.export.metadata import RunFacts
from trainers.families.positions import keep_middle
from trainers.families.registry import find_family
from trainers.families.residence import bring, release
from trainers.finish import gather
from trainers.follower import Follower
from trainers.graphs import record_passes
from trainers.memory.decide import decide, draws
from trainers.memory.kept import keep_saving, kept_saving
from trainers.memory.saving import apply
from trainers.memory.settle import settle
from trainers.moments import in_two_tries
from trainers.outputs import Folders, Outputs
from trainers.pauses import Pauses
from trainers.prepacked import prepack
from trainers.preservation import draw_class_pictures, preserved_captions
from trainers.progress import ended_by, throttled
from trainers.prompts import preview_prompts
from trainers.ranks import Lost, Ranks
from trainers.schedules import too_far, total_steps
from trainers.spill import Spill
from trainers.step import build_step
from trainers.stores import Feed, TextStore, caption_variants, cut_captions
from trainers.trial import settle_exact
from trainers.validate import measured_pictures

log = logging.getLogger(__name__)
FEW = 5  # names shown of many
REPORT = 10  # steps between reads of the loss: reading waits for the device


def train(config: TrainConfig, folders: Folders, emit: Callable[[Event], None], ranks: Ranks | None = None) -> None:
    """Run `config` to its end, or to a stop, resuming from the newest checkpoint of the run folder.

    Writes events, samples, checkpoints and the adapter file. With several `ranks`, each process calls it, and only the
    first one writes. Raises UserError for what the user can mend.
    """
    ranks = ranks or Ranks()
    ranks.join(memory.plan(config.memory).device.type)
    if not ranks.main:
        emit = _unheard
    settings, told = recovery.settings_of(config, folders.run)
    if told:
        emit(Phase("Reading the pictures"))  # with which every sitting begins
        emit(told)
    while _failed_and_goes_on(config, settings, folders, emit, ranks):
        settings, _ = recovery.settings_of(config, folders.run)
        devices.give_back()
    ranks.leave()


def _failed_and_goes_on(
    config: TrainConfig, settings: TrainConfig, folders: Folders, emit: Callable[[Event], None], ranks: Ranks
) -> bool:
    """Train with what takes the place of the run's own `config`; whether that failed and another way is told."""
    try:
        with ranks.together(), ExitStack() as until_the_end:
            _train(settings, folders, emit, ranks, until_the_end)
    except EndedEarly:
        emit(Stopped(checkpoint.newest_step(folders.checkpoints), paused=not folders.control.asked("stop")))
    except Lost:
        raise
    except Exception as error:
        told = recovery.another_way(config, error, folders.run, ranks.count) if ranks.main else None
        if ranks.exchange(value=told is not None):
            log.error("the run goes on otherwise\n%s", traceback.format_exc())  # in words, which hold no memory
            emit(told)
            return True
        raise
    return False


def _unheard(event: Event) -> None:
    """What a process that is not the first one has to tell."""


def _train(
    config: TrainConfig, folders: Folders, emit: Callable[[Event], None], ranks: Ranks, until_the_end: ExitStack
) -> None:
    # --- the machine, the base model, the pictures -------------------------------------------------------------------
    plan = memory.plan(config.memory)
    device = plan.device
    ranks.require_work(config)
    emit(Phase("Reading the pictures"))
    with ranks.one_by_one():
        earlier, damaged = checkpoint.newest_whole(folders.checkpoints)
    for one in damaged:
        emit(Warned(one.message, one.hint))
    if sentence := untried(devices.kind_of(device)):
        emit(Warned(sentence))
    on_cpu = device.type == "cpu"
    if on_cpu:
        torch.set_num_threads(threads.choose())  # in every sitting: what is encoded depends on it in its last bits
    start = None if earlier else _start_file(config)
    found = scan(config.data)
    _warn(found.problems, emit)
    require_word(config, [example.caption for example in found.examples])
    emit(Phase("Loading the base model"))
    family = find_family(config.model)
    components = family.load(config.model, plan.dtype, deferred=True)
    if config.adapter.trains_text:
        for encoder in components.text_encoders:
            bring(encoder, device)
    for remark in components.remarks:
        emit(Adjusted(*remark))
    tokens = start_tokens(components, family.spec, config)
    _warn(cut_captions(found.examples, family, components), emit)
    resolution = config.data.resolution or components.resolution
    crops = plan_crops(found.examples, config.data, resolution, *components.bounds)
    config, smaller = preview.bounded(config, components)
    if smaller:
        emit(smaller)
    keep_middle(components, preview.longest(config.preview, resolution, crops))
    training, held_out = split_validation(found.examples, config.data.validation_share, config.seed)
    trained = [(found.examples[i], crops[i]) for i in training]
    batches = Batches([c for _, c in trained], [e.repeats for e, _ in trained], config.data.batch_size, config.seed)
    if remark := batches.unfilled(config):
        emit(Warned(*remark))
    counted = batches.counted(config, resolution, crops)

    # --- encode once -------------------------------------------------------------------------------------------------
    cache = Cache(folders.cache) if config.memory.cache_latents else None
    progress = throttled(emit)
    preparing = ended_by(folders.control, progress)
    how = (family, components, config.data.flip, cache, device, preparing)
    latents = encode_together(ranks, found.examples, crops, *how)
    variants = [caption_variants(example, config.data, config.seed) for example in found.examples]
    preserved = [preserved_captions(example, config) for example in found.examples]
    captions = [*chain(*variants, *preserved), "", *_prompts(config)]
    text = TextStore(captions, family, components, config.model.clip_skip, device)
    base_text = None
    if config.loss.preservation or not config.adapter.trains_text:
        with ranks.one_by_one():
            hint = "An empty model.t5 needs less." * bool(config.model.t5)
            base_text = in_two_tries("captions", hint, lambda: text.encode_all(cache, preparing))
    if not config.adapter.trains_text:
        text.cached, text.still = base_text, True
        for encoder in components.text_encoders:
            release(encoder)

    # --- the adapter -------------------------------------------------------------------------------------------------
    emit(Phase("Setting up the step"))
    before = kept_saving(folders.run, config, components.denoiser) if earlier and on_cpu else None
    saving, adjusted, free = decide(family, components, counted, plan, latents.held + text.held(base_text), before)
    if on_cpu and ranks.main:
        keep_saving(folders.run, config, saving)
    if adjusted:
        emit(adjusted)
    later, aside = latents.postponed, ()
    if later and (beside := later.settle(counted, saving, free, preparing)):
        aside = beside.aside
        emit(later.told())
    settled = settle(components.denoiser, config.memory.quantize, saving, device, aside)
    if settled.packed:
        emit(settled.packed.told)
    prepack(components.denoiser, config.memory, saving)
    shapes = attention.attended(family, components, text, resolution, counted.at_once)
    kernels = (config.memory.attention, device, shapes, folders.cache, until_the_end)
    with devices.exactly(plan.exact):  # as the steps will be
        remarks = attention.set_attention(components.denoiser, *kernels)
    for remark in remarks:
        emit(remark)
    with ranks.one_by_one():
        drawn = draw_class_pictures(counted, family, components, text, base_text, resolution, cache, preparing)
    adapter = ADAPTERS[config.adapter.type](components, family.spec, config.adapter, config.seed)
    adapter.train_tokens(tokens)
    if start:
        _warn_of_start(start, warm_start(adapter, components, start), emit)
    apply(components.denoiser, saving, draws(config.adapter))

    # --- one step: batches, noise, loss, optimizer, schedule; and what the run leaves behind --------------------------
    feed = Feed(batches, training, latents, text, variants, preserved, config)
    steps = total_steps(config)
    measured = [*chain(*measured_pictures(held_out, training))] if config.preview.every else []
    if later:
        later.until(feed.all_places(measured), partial(settled.keep, aside))
    step = build_step(config, plan, family, components, adapter, feed, base_text, drawn, steps, emit)
    step.ranks = ranks
    step.careful = on_cpu  # where looking costs nothing; elsewhere the mean loss tells it soon

    def facts(position: Position) -> RunFacts:
        optimizer = optimizers.described(step.optimizer)
        where, how = (batches, position, steps), (resolution, step.noise.prediction, plan.precision, optimizer)
        return gather(config, components, trained, len(held_out), *where, *how, folders.cache)

    where = {"device": device.type, "precision": str(plan.precision), "begun": begun(config, found.examples)}
    position = Position(started=time.time(), session=str(uuid.uuid4().int >> 64), **where)
    others, spill = threads.Others() if on_cpu else None, Spill()
    leaving = (emit, components, adapter, step, position, held_out, resolution, counted, facts)
    outputs = (Outputs if ranks.main else Follower)(config, folders, *leaving)
    resumed = outputs.resume(earlier)  # where an earlier sitting stopped
    position = outputs.position
    ranks.begin_alike(step.parameters)
    if on_cpu and resumed:
        torch.set_num_threads(threads.choose(position.threads))
    elif ranks.count == 1:
        thread_count.settle(step, config, folders.cache)
    position.threads = torch.get_num_threads()
    if position.step > steps:
        raise UserError(*too_far(position.step, steps))

    # --- the loop ----------------------------------------------------------------------------------------------------
    emit(Started(steps, position.step, ranks.named(device), len(training), config.saving.name))
    pauses = Pauses(config.preview.every, position, latents)
    alone = ranks.count == 1  # the others wait for the one that draws
    lacking = preview.is_due(config.preview, position.step, steps) and outputs.undrawn()
    if lacking or config.preview.every and not resumed:
        if outputs.show(True, [], pauses, alone and position.step < steps):  # the base's, or an earlier sitting's
            raise EndedEarly
    adapter.train()
    settle_exact(step, plan.exact)
    regions = compile_blocks(step, config, folders.cache, emit)
    outputs.recorded = record_passes(step, config, emit, regions)
    emit(Phase("Training"))
    devices.forget_peak(device)
    ends = _text_ends(config.adapter, adapter, steps)
    if not ends and text.cached is None:  # the settings leave nothing of the text encoders to train
        text.cached = text.encode_all(None, progress)
    since, clock, encoded = position.step, awake(), latents.encoding_seconds
    control, stopped = folders.control, False
    while position.step < steps and not stopped:
        while ends and position.step >= ends[0][0]:
            outputs.settle(ends.pop(0)[1])
            if not ends:  # from here on the text encoder is frozen and need not run
                text.cached = text.encode_all(None, progress)
                emit(Phase("Training"))
        with outputs.saving():  # of the step before, where one was due
            step(position.step)
        position.step += 1

        wish = ranks.exchange(value=control.wish if ranks.main and position.step < steps else NOTHING)
        stopped, lighter = wish == END, wish == LESS_MEMORY and _can_be_lighter(config, folders, ranks, emit)
        last = position.step == steps or stopped
        save_due = last or _due(position.step, config.saving.every)
        rolling = not save_due and (lighter or outputs.overdue())
        wishes = outputs.wishes()
        preview_due = preview.is_due(config.preview, position.step, steps) or wishes == []
        if save_due or rolling or preview_due or wishes or _due(position.step, REPORT):
            mean = step.mean_loss()  # the one host sync
            seconds = awake() - clock
            position.seconds += seconds
            if not math.isfinite(mean):
                raise Overflowed(f"The loss became {mean}", position.step)
            rate, peak = step.schedule.get_last_lr()[0], memory.peak_gb(device)
            seconds -= latents.encoding_seconds - encoded
            pace, card = seconds / (position.step - since), memory.card_gb(device)
            beside = feed.encoding_left(position.step, steps, measured) + pauses.left(position.step, steps)
            emit(Step(position.step, steps, mean, rate, pace, peak, *card, beside))
            made = outputs.recorded.made if outputs.recorded else 0
            if remark := spill.look(pace, *card, made):
                emit(remark)
            if others and (taken := others.cores()) is not None:
                if remark := threads.crowded(taken, position.threads, threads.usable()):
                    emit(remark)
                    others = None  # once is enough
            if save_due or rolling:
                outputs.save(rolling)
            if preview_due or wishes or last or lighter:  # saved first: drawing is worth less
                outputs.finish_saving()
            if preview_due or wishes:
                if outputs.show(preview_due, wishes or [], pauses, alone and position.step < steps):
                    stopped = True
                    if not save_due:
                        outputs.save()
                        outputs.finish_saving()
                emit(Phase("Training"))
            since, clock, encoded = position.step, awake(), latents.encoding_seconds
            if lighter and not stopped:
                raise Crowded

    # --- the adapter file ---------------------------------------------------------------------------------------------
    emit(Phase("Writing the adapter"))
    path = outputs.write()
    if stopped:
        emit(Stopped(position.step, paused=not control.asked("stop")))
    else:
        emit(Finished(position.step, str(path.relative_to(folders.run)), position.seconds))


def _prompts(config: TrainConfig) -> list[str]:
    """What the previews will be told, so that it is encoded while the text encoders are there."""
    return [*preview_prompts(config), config.preview.negative] if config.preview.every else []


def _warn(problems: list[Problem], emit: Callable[[Event], None]) -> None:
    for problem in problems:
        emit(Warned(f"{problem.name}: {problem.message}", problem.hint))


def _start_file(config: TrainConfig) -> Path | None:
    """The adapter file to begin with, which is looked at before anything slow."""
    if not config.adapter.init_from:
        return None
    path = Path(config.adapter.init_from).expanduser()
    read_adapter(path)
    return path


def _warn_of_start(start: Path, unmatched: list[str], emit: Callable[[Event], None]) -> None:
    if unmatched:
        more = f" and {len(unmatched) - FEW} more" * (len(unmatched) > FEW)
        message = (
            f"Not all of {start.name} is taken over: {', '.join(unmatched[:FEW])}{more} fit nothing to be trained."
        )
        emit(Warned(message, "Set adapter.targets and adapter.text_encoder to those of the file to train them on."))


def _text_ends(config: AdapterConfig, adapter: Adapter, steps: int) -> list[tuple[int, list[nn.Parameter]]]:
    """The steps at which what is trained of the text encoders comes to rest, the earliest first."""
    layers = round(config.text_stop * steps), adapter.text_parameters()
    tokens = round(config.token_stop * steps), adapter.token_parameters()
    return sorted([end for end in (layers, tokens) if end[1]], key=lambda end: end[0])


def _can_be_lighter(config: TrainConfig, folders: Folders, ranks: Ranks, emit: Callable[[Event], None]) -> bool:
    """Whether the run can do what a person wishes, to use less memory; else that is told, and it goes on as before."""
    if ranks.main:
        folders.control.forget_less_memory()
    if recovery.can_be_smaller(config, ranks.count):
        return True
    emit(Warned("This run uses as little memory as it can.", "A smaller data.resolution or adapter.rank needs less."))
    return False


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
