"""A folder opens where there is a desktop, and is named where there is none."""

from app import open_folder as opening
from app.open_folder import open_folder


def test_without_a_desktop_the_place_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(opening.shutil, "which", lambda program: None)
    assert open_folder(tmp_path) == f"The folder is {tmp_path}"
    assert open_folder(tmp_path / "gone" / "file") == f"The folder {tmp_path / 'gone'} is no longer there."


def test_with_a_desktop_the_folder_of_a_file_is_opened(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(opening.shutil, "which", lambda program: "/usr/bin/opener")
    monkeypatch.setattr(opening.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(opening.subprocess, "Popen", lambda command, **options: started.append(command))
    (tmp_path / "a.safetensors").touch()
    assert open_folder(tmp_path / "a.safetensors") == f"Opened {tmp_path}"
    assert started == [["/usr/bin/opener", str(tmp_path)]]
