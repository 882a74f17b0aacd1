"""The best checkpoint is remembered in its run, and becomes a file under the name that a person gives."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import picks, send_to
from app.gui import results_file
from app.runs import Run
from trainers import config_io
from trainers.errors import UserError


class Engine:
    """Stands in for the worker: export writes files, inspect says what it was told to."""

    def __init__(self, **interfaces: dict[str, str] | str):
        self.interfaces = interfaces
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, name: str, report: object = None, **values: Any) -> dict[str, Any]:
        json.dumps(values)  # what cannot be sent fails here
        self.asked.append((name, values))
        if name == "inspect":
            form = next((form for form in ("diffusers", "peft") if form in values["file"]), "kohya")
            return {"interfaces": self.interfaces.get(form, "")}
        folder = Path(values["to"] or Path(values["run"], "output"))
        folder.mkdir(parents=True, exist_ok=True)
        ending = "" if values["form"] == "kohya" else f"-{values['form']}"
        adapter = folder / f"{values['called']}{ending}.safetensors"
        adapter.write_bytes(b"adapter")
        facts = adapter.with_suffix(".json")
        facts.write_text(json.dumps({"preferred weight": 1.0, "notes": "ü"}), "utf-8")
        said = {"verified": "all 8 layers read back as trained", "hash": "ab" * 32, "warnings": []}
        return {"adapter": str(adapter), "files": [str(adapter), str(facts)], **said}


@pytest.fixture
def trained(run: Run) -> Run:
    for step in (10, 20):
        (run.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    return run


def test_a_pick_is_remembered_in_the_run_folder(trained):
    assert picks.picked(trained) is None
    found = picks.pick(trained, 10, 0.8)
    assert picks.picked(trained) == found
    assert (found.step, found.strength, found.name, found.made) == (10, 0.8, "cat", False)


def test_a_checkpoint_that_is_gone_cannot_be_picked_and_is_no_longer_picked(trained):
    with pytest.raises(UserError, match="step 30 is no longer there"):
        picks.pick(trained, 30)
    picks.pick(trained, 10)
    (trained.folder / "checkpoints" / "step_000010").rmdir()
    assert picks.picked(trained) is None


def test_a_damaged_pick_is_none(trained):
    for text in ("", "[]", '{"step": 10}', '{"files": 1}'):
        (trained.folder / picks.FILE).write_text(text, "utf-8")
        assert picks.picked(trained) is None


def test_an_export_gets_its_name_its_checkpoint_and_the_strength(trained):
    engine = Engine(kohya={"ComfyUI": "loads"})
    found = picks.export(trained, picks.pick(trained, 10, 0.6), " Best  of Ü ", "kohya", engine.ask)
    assert engine.asked[0] == (
        "export",
        {"run": str(trained.folder), "checkpoint": "10", "form": "kohya", "to": None, "called": "Best of Ü"},
    )
    assert Path(found.adapter).name == "Best of Ü.safetensors"
    facts = json.loads(Path(found.adapter).with_suffix(".json").read_text("utf-8"))
    assert facts == {"preferred weight": 0.6, "notes": "ü"}
    assert picks.picked(trained) == found and found.made


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", "con\n?", "x" * 200])
def test_a_name_that_no_file_can_have_is_a_sentence(trained, name):
    engine = Engine()
    with pytest.raises(UserError) as error:
        picks.export(trained, picks.pick(trained, 10), name, "kohya", engine.ask)
    assert "name" in error.value.message and "saving." not in error.value.message
    assert not engine.asked


def test_another_strength_of_the_same_checkpoint_keeps_its_file(trained):
    made = picks.export(trained, picks.pick(trained, 10), "zib", "kohya", Engine().ask)
    assert picks.pick(trained, 10, 0.6).adapter == made.adapter
    assert picks.pick(trained, 20, 0.6).adapter == ""


def test_new_tokens_have_a_folder_for_each_name(trained):
    changes = {"data": {"trigger": "zib"}, "adapter": {"new_tokens": 2}}
    config_io.save(config_io.merge(config_io.load(trained.config), changes), trained.config)
    engine = Engine()
    picks.export(trained, picks.pick(trained, 10), "best", "kohya", engine.ask)
    assert engine.asked[0][1]["to"] == str(trained.folder / "output" / "best")


def test_a_program_gets_the_layout_that_it_loads_whole(trained):
    forge = {"Forge": "loads", "ComfyUI": "loads in part: 3 keys unmatched"}
    engine = Engine(kohya=forge, diffusers={"Forge": "does not load: names", "ComfyUI": "loads: as trained"})
    found = picks.export(trained, picks.pick(trained, 10), "best", "kohya", engine.ask)
    assert picks.for_program(trained, found, "Forge", engine.ask) == found
    other = picks.for_program(trained, found, "ComfyUI", engine.ask)
    assert Path(other.adapter).name == "best-diffusers.safetensors"
    assert other.loads_in("ComfyUI")
    assert picks.picked(trained) == found


def test_where_no_layout_is_loaded_whole_the_file_stays_and_the_verdict_is_known(trained):
    engine = Engine(kohya={"A1111": "does not load: no class"}, diffusers={"A1111": "does not load: names"})
    found = picks.export(trained, picks.pick(trained, 10), "best", "kohya", engine.ask)
    file = picks.for_program(trained, found, "A1111", engine.ask)
    assert file == found and not file.loads_in("A1111")
    assert file.said_of("A1111") == "does not load: no class"


def test_one_sentence_for_all_programs_is_no_promise(trained):
    found = picks.export(trained, picks.pick(trained, 10), "best", "kohya", Engine(kohya="made for the small base").ask)
    assert not found.loads_in("A1111")
    assert found.said_of("A1111") == "made for the small base"


class Slow(Engine):
    """While it makes the file, a person picks something else."""

    def __init__(self, run: Run, *other: float):
        super().__init__()
        self.run, self.other = run, other

    def ask(self, name: str, report: object = None, **values: Any) -> dict[str, Any]:
        picks.pick(self.run, *self.other)
        return super().ask(name, report, **values)


def test_what_is_picked_while_a_file_is_made_stays_picked(trained):
    with pytest.raises(UserError, match="Step 20 was picked meanwhile"):
        picks.export(trained, picks.pick(trained, 10), "cat", "kohya", Slow(trained, 20).ask)
    assert picks.picked(trained).step == 20 and not picks.picked(trained).made
    found = picks.export(trained, picks.pick(trained, 10), "cat", "kohya", Slow(trained, 10, 0.6).ask)
    assert found.made and found.strength == 0.6 and picks.picked(trained) == found
    assert json.loads(Path(found.adapter).with_suffix(".json").read_text("utf-8"))["preferred weight"] == 0.6


def test_a_program_whose_folder_has_gone_is_asked_for_it(trained, place, monkeypatch):
    monkeypatch.setattr(send_to, "_installed", lambda person: {})
    picks.export(trained, picks.pick(trained, 10), "cat", "kohya", Engine().ask)
    answer = results_file.send(SimpleNamespace(home=place), {"act": "send", "program": "ComfyUI"}, trained.key)
    assert "LoRA folder of ComfyUI" in answer["sending"]["value"]
