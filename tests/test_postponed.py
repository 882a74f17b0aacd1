"""Pictures that are encoded when a step first shows them: the same weights, true numbers, nothing lost."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.nine_pictures import nine_pictures
from tests.test_train import run
from tests.tiny import tiny_pipeline_folder
from trainers import checkpoint, config_io, encoding, events, postponed, threads
from trainers import train as recipe
from trainers.config import DataConfig, ModelConfig
from trainers.data.buckets import plan
from trainers.data.cache import Cache
from trainers.data.examples import scan
from trainers.encoding import encode_pictures
from trainers.errors import UserError
from trainers.families.residence import is_away
from trainers.families.sd15 import SD15
from trainers.memory.decide import Free
from trainers.memory.fit import spread
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.stream import Stream
from trainers.memory.units import blocks

CPU = torch.device("cpu")
PLENTY, NONE = Free(1e12, 1e12), Free(0, 0)
WORDS = "pictures are encoded when a step first shows them"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    """Every picture is encoded alone, and none before the first step."""
    monkeypatch.setitem(encoding.AT_ONCE, "cpu", 1)
    monkeypatch.setattr(encoding, "SOON", 0.0)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many pictures each call of the VAE encoded."""
    calls, encode = [], SD15.encode_image

    def counted(vae, pixel):
        if not pixel.is_meta:  # where only its bytes are counted
            calls.append(len(pixel))
        return encode(vae, pixel)

    monkeypatch.setattr(SD15, "encode_image", counted, raising=False)
    return calls


def told(seen: list[events.Event]) -> list[str]:
    return [event.what for event in seen if isinstance(event, events.Adjusted) and WORDS in event.what]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "output" / "tiny.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_ends_in_the_same_weights_whenever_its_pictures_are_encoded(
    tmp_path, base, pictures, monkeypatch, cached
):
    how = {"memory": {"cache_latents": cached}, "data": {"validation_share": 0.3}, "preview": {"every": 3}}
    late = run(tmp_path / "late", base, pictures, 5, **how)
    again = run(tmp_path / "late2", base, pictures, 5, **how)
    monkeypatch.setattr(encoding, "SOON", 1e9)
    before = run(tmp_path / "before", base, pictures, 5, **how)
    assert told(late) == told(again) == ["9 of 9 " + WORDS] and told(before) == []
    assert same_weights(tmp_path / "late", tmp_path / "before") and same_weights(tmp_path / "late", tmp_path / "late2")
    losses = [[e for e in seen if isinstance(e, events.Validation)] for seen in (late, before)]
    assert losses[0] == losses[1] and losses[0]


def test_kernels_and_threads_of_the_steps_are_not_those_of_the_vae(tmp_path, pictures, monkeypatch):
    base = tiny_pipeline_folder(tmp_path / "base", sample_size=32)  # so that its VAE attends
    counts, real = [], postponed.moments

    def noting(*given):
        counts.append(torch.get_num_threads())
        return real(*given)

    def fewer(*_):
        torch.set_num_threads(1)

    monkeypatch.setattr(postponed, "moments", noting)
    monkeypatch.setattr(threads, "choose", lambda earlier=0: earlier or 2)
    monkeypatch.setattr(recipe.thread_count, "settle", fewer)
    how = {"memory": {"attention": "math"}, "data": {"resolution": 32}}
    run(tmp_path / "late", base, pictures, 4, **how)
    assert set(counts) == {2} and torch.get_num_threads() == 1
    monkeypatch.setattr(encoding, "SOON", 1e9)
    run(tmp_path / "before", base, pictures, 4, **how)
    assert same_weights(tmp_path / "late", tmp_path / "before")


def test_what_is_never_shown_is_not_encoded_and_what_was_is_found_again(tmp_path, base, pictures, encoded):
    run(tmp_path, base, pictures, 2)  # batches of 2
    assert 0 < len(encoded) <= 4 < 18
    names = {file.name for file in (tmp_path / "cache").glob("*.safetensors")}
    run(tmp_path, base, pictures, 3)
    assert len(encoded) <= 6 and names <= {file.name for file in (tmp_path / "cache").glob("*.safetensors")}


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, base, pictures):
    run(tmp_path / "straight", base, pictures, 6)
    run(tmp_path / "parted", base, pictures, 6, stop_at=2)
    (tmp_path / "parted" / "control" / "stop").unlink()
    run(tmp_path / "parted", base, pictures, 6)
    assert same_weights(tmp_path / "straight", tmp_path / "parted")


def test_a_picture_that_is_gone_by_then_costs_no_step(tmp_path, base, pictures, monkeypatch):
    run(tmp_path / "straight", base, pictures, 6)
    own = tmp_path / "own"
    own.mkdir()
    for file in pictures.iterdir():
        (own / file.name).write_bytes(file.read_bytes())

    def gone(event: events.Event) -> None:
        if isinstance(event, events.Started) and event.step == 0:
            for file in own.glob("*.png"):
                file.rename(file.with_suffix(".away"))

    monkeypatch.setattr(recipe.thread_count, "settle", lambda step, *_: [step.feed.fetch(i) for i in range(2)])
    with pytest.raises(UserError, match="and resume"):
        run(tmp_path / "parted", base, own, 6, heard=gone)
    for file in own.glob("*.away"):
        file.rename(file.with_suffix(".png"))
    seen = run(tmp_path / "parted", base, own, 6)
    assert next(event.step for event in seen if isinstance(event, events.Started)) == 2
    assert same_weights(tmp_path / "straight", tmp_path / "parted")


def test_a_picture_that_is_gone_when_it_is_measured_costs_no_step(tmp_path, base, pictures, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    for file in pictures.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(recipe, "REPORT", 1)

    def gone(event: events.Event) -> None:
        if isinstance(event, events.Step) and event.step == 3:
            for file in own.glob("*.png"):
                file.unlink()

    with pytest.raises(UserError, match="Put it back, or leave it out, and resume"):
        how = {"data": {"validation_share": 0.4}, "preview": {"every": 3, "sampling_steps": 1}}
        run(tmp_path / "run", base, own, 6, heard=gone, **how)
    assert checkpoint.newest_step(tmp_path / "run" / "checkpoints") == 3


def test_memory_that_runs_out_meanwhile_is_tried_once_more_and_then_told(tmp_path, base, pictures, monkeypatch):
    calls, real = [], postponed.moments

    def crowded(*given):
        calls.append(given)
        if len(calls) in broken:
            raise MemoryError
        return real(*given)

    monkeypatch.setattr(postponed, "moments", crowded)
    broken = {2}
    assert isinstance(run(tmp_path / "once", base, pictures, 3)[-1], events.Finished)
    calls.clear()
    broken = {3, 4}
    with pytest.raises(UserError, match="The memory ran out twice while the pictures were encoded"):
        run(tmp_path / "twice", base, pictures, 3)
    assert len(calls) == 4


def test_time_spent_encoding_is_told_apart_from_that_of_steps(tmp_path, base, pictures, monkeypatch):
    now, real = [0.0], postponed.moments

    def slow(*given):
        now[0] += 100.0
        return real(*given)

    monkeypatch.setattr(postponed, "moments", slow)
    monkeypatch.setattr(postponed, "awake", lambda: now[0])
    monkeypatch.setattr(recipe, "awake", lambda: now[0])
    monkeypatch.setattr(recipe, "REPORT", 1)
    seen = run(tmp_path, base, pictures, 6, data={"batch_size": 1, "flip": False})
    steps = [event for event in seen if isinstance(event, events.Step)]
    assert [event.seconds for event in steps] == [0.0] * 6
    assert [event.beside_left for event in steps] == [500.0, 400.0, 300.0, 200.0, 100.0, 0.0]  # 3 are never shown
    assert seen[-1].seconds == 600.0  # they are part of the run's time
    assert events.fold(seen[: seen.index(steps[2]) + 1]).beside_left == 300.0


def store(base, pictures, cache: Path) -> encoding.LatentStore:
    config = DataConfig(folders=[str(pictures)])
    examples = scan(config).examples
    components = SD15.load(ModelConfig(base=str(base)), torch.float32, deferred=True)
    given = (examples, plan(examples, config, 32, 8), SD15, components, True, Cache(cache), torch.device("cpu"))
    return encode_pictures(*given, lambda *_: None, encoding.SOON)


def test_where_there_is_no_room_beside_the_step_all_are_encoded_before_it(base, pictures, tmp_path, encoded):
    config, seen = config_io.parse({"model": {"base": str(base)}}), []
    found = store(base, pictures, tmp_path)
    assert not encoded and is_away(found.postponed.vae)
    assert found.postponed.settle(config, PLAIN, NONE, lambda *said: seen.append(said)) is None
    assert len(encoded) == 18 and is_away(found.postponed.vae) and found.postponed.left == 0
    assert seen[0] == ("Encoding pictures", 1, 18) and seen[-1] == ("Encoding pictures", 18, 18)
    assert all(moments.any() for stack in found.moments.values() for moments in stack)


@pytest.mark.parametrize("free", [PLENTY, Free(1e12, 0)], ids=["stays", "goes"])
def test_the_vae_stays_in_memory_only_where_a_step_can_spare_that(base, pictures, tmp_path, encoded, free):
    found = store(base, pictures, tmp_path)
    found.postponed.settle(config_io.parse({"model": {"base": str(base)}}), PLAIN, free, lambda *_: None)
    found.mean(0)
    found.mean(0)
    assert len(encoded) == 1 and is_away(found.postponed.vae) == (free != PLENTY)
    for place in found.rows:
        found.need([place])
    assert len(encoded) == 18 and is_away(found.postponed.vae)


def test_what_is_lent_is_given_back_once_when_all_that_a_run_shows_are_encoded(base, pictures, tmp_path, encoded):
    found, given = store(base, pictures, tmp_path), []
    later = found.postponed
    later.settle(config_io.parse({"model": {"base": str(base)}}), PLAIN, PLENTY, lambda *_: None)
    later.until({(0, False), (1, True)}, lambda: given.append(len(encoded)))
    found.need([(0, False)])
    assert not given and not is_away(later.vae)
    found.need([(2, False), (1, True)])
    assert given == [3] and is_away(later.vae)
    found.need([(3, False)])
    assert given == [3] and is_away(later.vae) and len(encoded) == 4
    later.until({(0, False)}, lambda: given.append(0))  # nothing of that waits
    assert given == [3, 0]


def test_weights_that_make_room_come_back_when_all_are_encoded_and_nothing_else_changes(
    tmp_path, base, pictures, monkeypatch, encoded
):
    seen: list[tuple[int, int]] = []  # blocks that wait, before some come to stay and afterwards
    real, how = Stream.keep, {"data": {"batch_size": 3, "flip": False, "validation_share": 0.3}}

    def planned(family, components, config, *_):
        whole, takes = blocks(components.denoiser), postponed.picture_bytes(family, components, config, CPU)
        return Saving(whole, streamed=spread(whole, 2)), None, Free(takes - 1, 0)  # a little more is needed

    def keep(stream, paths):
        before = len(stream.blocks)
        real(stream, paths)
        seen.append((before, len(stream.blocks)))

    monkeypatch.setattr(recipe, "decide", planned)
    monkeypatch.setattr(Stream, "keep", keep)
    late = run(tmp_path / "late", base, pictures, 8, **how)
    assert told(late) == ["9 of 9 " + WORDS] and len(seen) == 1 and seen[0][0] > seen[0][1] == 2
    assert 0 < len(encoded) < 9  # what is held out is not measured without previews
    run(tmp_path / "parted", base, pictures, 8, stop_at=4, **how)
    (tmp_path / "parted" / "control" / "stop").unlink()
    run(tmp_path / "parted", base, pictures, 8, **how)
    monkeypatch.setattr(encoding, "SOON", 1e9)
    before = run(tmp_path / "before", base, pictures, 8, **how)
    assert told(before) == []
    assert same_weights(tmp_path / "late", tmp_path / "before")
    assert same_weights(tmp_path / "late", tmp_path / "parted")


def test_what_lies_in_a_file_is_encoded_into_it(base, pictures, tmp_path, monkeypatch):
    in_memory = store(base, pictures, tmp_path / "a")
    monkeypatch.setattr("trainers.data.rows.Budget.__init__.__defaults__", (0,))
    monkeypatch.setattr("trainers.stores.LatentStore.__init__.__defaults__", (None, 0))
    (tmp_path / "b").mkdir()
    in_file = store(base, pictures, tmp_path / "b")
    assert in_file.held == 0 < in_memory.held
    for index in range(9):
        assert torch.equal(in_file.mean(index), in_memory.mean(index)) and in_file.mean(index).any()


def test_pictures_in_the_cache_do_not_wait(base, pictures, tmp_path):
    first = store(base, pictures, tmp_path)
    first.need([(0, False), (1, True)])
    again = store(base, pictures, tmp_path)
    assert again.postponed.left == 16 and torch.equal(again.mean(0), first.mean(0))
