"""Files made to do harm: a sentence, and no code is run, nothing written elsewhere, no disk or memory filled."""

import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from app import captions_edit, dropped, picks, projects
from app.paths import Home
from app.runs import Run
from tests.mutated.guard import guarded
from trainers import checkpoint, config_io, events, sums
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.reading import read_modules
from trainers.checkpoint import Damaged, Position, Saved
from trainers.config import DataConfig
from trainers.data.decoding import Unreadable, inspect
from trainers.data.examples import scan
from trainers.errors import UserError
from trainers.families.detect import identify
from trainers.families.weights import read_pickle

LAYER = "lora_unet_mid_block_attentions_0_proj_in"
ENTRY = {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}


class Harm:
    """Pickled, it is a call that makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def own_project(place) -> projects.Project:
    return projects.create_own(Home(place), "Cats", "object")


def test_a_checkpoint_whose_optimizer_carries_code_is_damaged_and_the_code_not_run(tmp_path):
    saved = Saved(Position(1), {"a": torch.ones(2)}, None, {}, {}, None)
    folder = checkpoint.save(tmp_path / "checkpoints", saved, keep=1)
    torch.save({"optimizer": Harm(tmp_path / "harm"), "schedule": {}, "scaler": None}, folder / "optimizer.pt")
    sums.write(folder)  # whoever made it up also made the checksums
    with pytest.raises(Damaged, match="is damaged"):
        checkpoint.load(folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_base_model_that_carries_code_is_refused_and_the_code_not_run(tmp_path, protocol):
    file = tmp_path / "model.ckpt"
    file.write_bytes(pickle.dumps({"state_dict": Harm(tmp_path / "harm")}, protocol))
    with pytest.raises(UserError, match=r"model.ckpt"):
        read_pickle(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 17]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [-16, 0]},
        {"data_offsets": [16, 0]},
        {"data_offsets": [8, 24]},
        {"data_offsets": [0.0, 16.0]},
        {"data_offsets": [False, 16]},
        {"data_offsets": 16},
        {"shape": [2**62, 2**62]},
        {"shape": [-4, -2]},
        {"shape": "42"},
        {"shape": None},
        {"dtype": None},
        {"dtype": []},
        {"dtype": "x" * 50_000},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_header_whose_sizes_lie_is_a_sentence(tmp_path, change):
    file = _adapter(tmp_path, json.dumps({f"{LAYER}.lora_up.weight": ENTRY | change}).encode())
    for read in (identify, read_adapter):
        with pytest.raises(UserError, match="a.safetensors") as refused:
            read(file)
        assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 50_000,
        b'{"__metadata__": [1], "a": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}',
        b'{"__metadata__": {"a": "\\ud800"}, "a": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F16", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}',
        b'{"a": 3}',
    ],
    ids=["deep", "list as metadata", "half a letter", "thousands of digits", "no entry"],
)
def test_a_header_that_is_no_header_is_a_sentence(tmp_path, header):
    with pytest.raises(UserError, match="damaged header"):
        identify(_adapter(tmp_path, header))


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "a*a*a*a*b", "(a{1,9}){1,9}b", "a?" * 40 + "a" * 40, "a" * 400]
)
def test_patterns_of_alphas_cannot_be_made_to_match_for_hours(tmp_path, pattern):
    tensors = {f"unet.{'a' * 60}.lora_A.weight": torch.ones(2, 4), f"unet.{'a' * 60}.lora_B.weight": torch.ones(4, 2)}
    told = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": {pattern: 1}})}
    with guarded(tmp_path), pytest.raises(UserError, match="alphas cannot be read"):
        read_modules(tensors, told)


@pytest.mark.parametrize("pattern", [r"^mid.*\.to_q$", r"blocks\.\d+\.layers\.\d+\.parts\.\d+\..*to_q", "to_q"])
def test_patterns_of_alphas_that_people_write_are_followed(pattern):
    name = "unet.mid.blocks.1.layers.2.parts.3.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 4), f"{name}.lora_B.weight": torch.ones(4, 2)}
    told = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": {pattern: 7}})}
    assert read_modules(tensors, told)[name].alpha == 7


@pytest.mark.parametrize(
    ("width", "height", "words"), [(15_000, 19_000, "made to fill the memory"), (2**31 - 1, 9, "more than")]
)
def test_a_picture_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path, width, height, words):
    with guarded(tmp_path), pytest.raises(Unreadable, match=words):
        inspect(_png(width, height, bytes(5000)))


def test_a_text_in_a_picture_that_unpacks_to_gigabytes_fills_no_memory(tmp_path):
    packer = zlib.compressobj(9)
    begin, piece = (packer.compress(bytes(2**22)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = begin + 200 * piece
    with guarded(tmp_path), pytest.raises(Unreadable):
        inspect(_png(4, 4, zlib.compress(bytes(13 * 4)), (b"zTXt", b"a\0\0" + bomb)))


def test_a_picture_or_caption_of_gigabytes_is_named_and_not_read(tmp_path, pictures):
    for name in ("huge.png", "0.txt"):
        with (pictures / name).open("wb") as file:
            file.truncate(2 * 2**30)
    with guarded(tmp_path):
        found = scan(DataConfig(folders=(str(pictures),)))
    assert len(found.examples) == 3
    told = " ".join(map(str, found.problems))
    assert "2.0 GB are more than a picture has" in told and "too large to be a caption" in told


def test_a_zip_file_that_unpacks_to_gigabytes_is_left_packed(own_project, tmp_path):
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.png", b"x" * 50)
    data = file.read_bytes()
    file.write_bytes(data.replace((50).to_bytes(4, "little"), (4 * 10**9).to_bytes(4, "little")))
    with guarded(own_project.folder):
        added = dropped.add(own_project, [file])
    assert added.skipped == ["bomb.zip would unpack to 3.7 GB: it is made to fill the disk."]
    assert list(Path(own_project.pictures).iterdir()) == []


@pytest.mark.parametrize("where", ["pictures/../../../../mine.txt", "../../../mine.txt", "pictures/link/mine.txt"])
def test_a_list_of_changes_takes_back_nothing_outside_the_pictures(own_project, tmp_path, where):
    mine = tmp_path / "mine.txt"
    mine.write_text("my own", "utf-8")
    (Path(own_project.pictures) / "link").symlink_to(tmp_path, target_is_directory=True)
    named = f"{own_project.folder}/{where}"
    assert os.path.samefile(named, mine)
    change = {"what": "A caption", "before": {named: None}, "after": {named: "my own"}}
    (own_project.folder / captions_edit.HISTORY).write_text(json.dumps(change), "utf-8")
    assert "left alone" in captions_edit.undo(own_project)
    assert mine.read_text("utf-8") == "my own"


def test_a_pick_that_came_with_an_archive_changes_no_file_outside_its_run(run, tmp_path):
    (run / "checkpoints" / "step_000020").mkdir(parents=True)
    theirs = tmp_path / "theirs.json"
    theirs.write_text('{"preferred weight": 1.0}', "utf-8")
    told = {"step": 20, "strength": 1.0, "name": "cat", "files": [str(theirs)]}
    (run / picks.FILE).write_text(json.dumps(told), "utf-8")
    picks.pick(Run(run), 20, 0.5)
    assert picks.picked(Run(run)).strength == 0.5
    assert theirs.read_text("utf-8") == '{"preferred weight": 1.0}'


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a = " + "9" * 5000, "a." * 400_000 + "a = 1", "a = 1\n" * 1_000_000],
    ids=["deep", "thousands of digits", "dotted", "long"],
)
def test_settings_made_to_be_read_for_hours_are_a_sentence(tmp_path, text):
    file = tmp_path / "config.toml"
    file.write_text(text, "utf-8")
    with guarded(tmp_path), pytest.raises(UserError, match="config.toml"):
        config_io.read_toml(file)


def test_a_log_of_events_keeps_what_is_whole_between_gigabytes_of_damage(tmp_path):
    log = events.EventLog(tmp_path / "events.jsonl")
    log(events.Started(20, 0, "cpu", 3, "cat"))
    with log.path.open("r+b") as file:
        file.seek(600 << 20)
        file.write(b"\n")
    log(events.Stopped(7))
    with guarded(tmp_path):
        told = list(events.read(log.path))
    assert told == [events.Started(20, 0, "cpu", 3, "cat"), events.Stopped(7)]


@pytest.mark.parametrize(
    "wrong",
    ['"step": "7"', '"step": null', '"step": 1e400', '"loss": NaN', '"loss": "0.1"', '"loss": [1]', '"time": "now"'],
)
def test_an_event_of_wrong_values_is_no_event(tmp_path, wrong):
    whole = '{"seq": 0, "time": 1, "type": "step", "step": 1, "steps": 9, "loss": 0.1, "rate": 1, "seconds": 1, '
    file = tmp_path / "events.jsonl"
    file.write_text(f'{whole}"memory_gb": 1, {wrong}}}\n{whole}"memory_gb": 2}}\n', "utf-8")
    assert [event.memory_gb for event in events.read(file)] == [2]


@pytest.mark.parametrize(
    "name", ["../../up", "a/b", "C:\\x", "CON", "nul", "com1", ".", "..", "a\0b", "a" * 300, "/etc", "~"]
)
def test_a_project_of_any_title_lies_among_the_projects(place, name):
    home = Home(place)
    with guarded(place.parent):
        made = projects.create_own(home, name, "object")
    assert made.folder.parent == home.projects and made.folder.resolve() == made.folder
    assert made.slug.casefold().partition(".")[0] not in projects.RESERVED
    assert projects.named(home, " ".join(name.split())) == made


def _adapter(folder: Path, header: bytes) -> Path:
    """A safetensors file with that header, and one tensor of 16 bytes."""
    file = folder / "a.safetensors"
    whole = save({"a": torch.zeros(4, 2, dtype=torch.float16)})
    file.write_bytes(len(header).to_bytes(8, "little") + header + whole[-16:])
    return file


def _png(width: int, height: int, packed: bytes, *more: tuple[bytes, bytes]) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", size), *more, (b"IDAT", packed), (b"IEND", b"")):
        made += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return made
