"""The computer's memory is what this process may have of it, in a container too."""

from types import SimpleNamespace

import pytest

from trainers import computer

GIB = 1 << 30
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """32 GiB, of which 20 are free, and no control groups yet."""
    monkeypatch.setattr(computer, "SYSTEM", tmp_path)
    memory = SimpleNamespace(total=32 * GIB, available=20 * GIB)
    monkeypatch.setattr(computer.psutil, "virtual_memory", lambda: memory)


def group(folder, names, limit, used, idle):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used, f"anon 5\n{names[2]} {idle}"), strict=True):
        (folder / ("memory.stat" if name == names[2] else name)).write_text(f"{value}\n")


def belongs(place, line):
    (place / "proc/self").mkdir(parents=True, exist_ok=True)
    (place / "proc/self/cgroup").write_text(f"9:name=systemd:/\n8:pids:/\n{line}\n")


def test_without_groups_it_is_the_machines():
    assert (computer.total_bytes(), computer.available_bytes()) == (32 * GIB, 20 * GIB)


def test_a_container_s_limit_counts_and_files_that_give_way_do_not(tmp_path):
    belongs(tmp_path, "0::/")
    group(tmp_path / computer.V2, V2, 8 * GIB, 3 * GIB, 1 * GIB)
    assert (computer.total_bytes(), computer.available_bytes()) == (8 * GIB, 6 * GIB)


def test_the_narrowest_of_the_groups_around_it_counts(tmp_path):
    belongs(tmp_path, "0::/user.slice/darkroom.service")
    top = tmp_path / computer.V2
    group(top / "user.slice", V2, 4 * GIB, 5 * GIB, 0)
    group(top / "user.slice/darkroom.service", V2, "max", 1 * GIB, 0)
    assert (computer.total_bytes(), computer.available_bytes()) == (4 * GIB, 0)


def test_the_first_version_of_groups_is_read(tmp_path):
    belongs(tmp_path, "4:cpu,memory:/docker/abc")
    group(tmp_path / computer.V1 / "docker/abc", V1, 6 * GIB, 2 * GIB, 0)
    assert (computer.total_bytes(), computer.available_bytes()) == (6 * GIB, 4 * GIB)


def test_no_limit_is_none(tmp_path):
    belongs(tmp_path, "4:memory:/")
    group(tmp_path / computer.V1, V1, (1 << 63) - 4096, 2 * GIB, 0)
    assert (computer.total_bytes(), computer.available_bytes()) == (32 * GIB, 20 * GIB)
