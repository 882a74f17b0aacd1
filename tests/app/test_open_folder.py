"""A folder opens in the system's file manager, or its path is said."""

import pytest

from app import open_folder
from trainers.errors import UserError


def test_each_system_has_its_program(tmp_path):
    program = tmp_path / "xdg-open"
    program.touch(0o755)
    assert open_folder.find_program("win32", {}) == "explorer"
    assert open_folder.find_program("darwin", {}) == "open"
    assert open_folder.find_program("linux", {"DISPLAY": ":0", "PATH": str(tmp_path)}) == str(program)
    assert open_folder.find_program("linux", {"PATH": str(tmp_path)}) is None


def test_without_a_desktop_the_path_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(open_folder, "find_program", lambda *_: None)
    with pytest.raises(UserError, match="no desktop") as caught:
        open_folder.open_folder(tmp_path / "a file")
    assert str(tmp_path) in caught.value.hint


def test_the_folder_itself_is_opened(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(open_folder, "find_program", lambda *_: "open")
    monkeypatch.setattr(open_folder.subprocess, "Popen", lambda command, **_: started.append(command))
    open_folder.open_folder(tmp_path / "cat.safetensors")
    assert started == [["open", str(tmp_path)]]


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(UserError, match="no longer there"):
        open_folder.open_folder(tmp_path / "gone" / "cat.safetensors")
