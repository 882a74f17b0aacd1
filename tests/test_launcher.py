"""The launcher: its decisions for every platform, and what it does with environments in every state."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import darkroom
from darkroom import Plan, SetupError

ROOT = Path(darkroom.__file__).parent


# ---- which Python


@pytest.mark.parametrize("version", [(3, 8), (3, 10)])
def test_old_python_is_told_what_to_do(version):
    sentence = darkroom.unsupported(version, "Linux", "x86_64", True, newer="python3.12")
    assert "3.11 or newer" in sentence and f"{version[0]}.{version[1]}." in sentence and "python3.12" in sentence


def test_current_python_on_every_supported_machine_may_start():
    for system, machine in [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64")]:
        assert darkroom.unsupported((3, 11), system, machine, True) == ""


def test_intel_mac_and_32_bit_python_are_told_why_they_cannot():
    assert "Intel" in darkroom.unsupported((3, 12), "Darwin", "x86_64", True)
    assert "64-bit" in darkroom.unsupported((3, 12), "Windows", "x86", False)


def test_launcher_is_readable_for_python_3_8():
    compile_like_3_8 = "import ast, sys; ast.parse(open(sys.argv[1], encoding='utf-8').read(), feature_version=(3, 8))"
    assert subprocess.run([sys.executable, "-c", compile_like_3_8, ROOT / "darkroom.py"]).returncode == 0


def test_old_python_ends_with_exit_code_1_before_anything_is_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(darkroom, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(darkroom, "newer_python", str)
    monkeypatch.setenv("DARKROOM_VENV", str(tmp_path / "venv"))
    assert darkroom.main(["--help"]) == 1
    assert "Darkroom needs Python 99.0 or newer" in capsys.readouterr().err
    assert not (tmp_path / "venv").exists()


# ---- where and what


def test_environment_lies_beside_the_launcher_unless_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert darkroom.venv_folder({}, ROOT) == ROOT / ".venv"
    assert darkroom.venv_folder({"DARKROOM_VENV": "mine"}, ROOT) == tmp_path / "mine"


def test_python_lies_where_each_system_puts_it():
    assert darkroom.venv_python(Path("v"), "nt").parts[1:] == ("Scripts", "python.exe")
    assert darkroom.venv_python(Path("v"), "posix").parts[1:] == ("bin", "python")


@pytest.mark.parametrize(
    ("system", "machine", "command", "path", "expected"),
    [
        ("Darwin", "arm64", False, "", "mps"),
        ("Windows", "AMD64", True, "", "cuda"),
        ("Linux", "x86_64", False, "/proc/driver/nvidia/version", "cuda"),
        ("Linux", "x86_64", False, "/dev/kfd", "rocm"),
        ("Linux", "x86_64", False, "", "cpu"),
        ("Windows", "AMD64", False, "", "cpu"),
    ],
)
def test_accelerator_is_known_by_its_driver(system, machine, command, path, expected):
    paths = {name: name == path for name in ("/proc/driver/nvidia/version", "/dev/kfd")}
    assert darkroom.detect_accelerator(system, machine, {"nvidia-smi": command}, paths) == expected


def test_linux_without_a_card_asks_for_the_small_torch_first_and_works_without_its_index():
    ways = darkroom.plans("cpu", "Linux")
    assert ways[0] == Plan(torch_index=True)
    assert Plan() in ways and Plan(tool="pip") in ways


def test_only_nvidia_cards_get_the_gpu_extra_and_never_depend_on_it():
    assert darkroom.plans("cuda", "Windows")[0].extras == "gpu"
    assert any(not way.extras and way.torch_index for way in darkroom.plans("cuda", "Linux"))
    assert not any(way.extras for kind in ("cpu", "rocm", "mps") for way in darkroom.plans(kind, "Linux"))


@pytest.mark.parametrize(("accelerator", "system"), [("mps", "Darwin"), ("cpu", "Windows"), ("cuda", "Linux")])
def test_untested_versions_are_the_last_resort(accelerator, system):
    pins = [way.pins for way in darkroom.plans(accelerator, system)]
    assert pins.index("none") == len(pins) - pins.count("none") > 0


TABLES = {"dependencies": ["torch"], "optional-dependencies": {"gpu": ["xformers"]}, "dev": ["pytest"]}


def test_project_is_installed_editable_from_the_current_folder():
    assert darkroom.project_requirements("gpu", True, TABLES, "/Döner [x]", "posix", (3, 11)) == [
        "-e",
        ".[gpu]",
        "pytest",
    ]


def test_windows_path_that_an_old_pth_reader_cannot_read_is_left_out():
    listed = darkroom.project_requirements("gpu", False, TABLES, "C:\\Döner", "nt", (3, 12))
    assert listed == ["torch", "xformers"]
    assert darkroom.project_requirements("", False, TABLES, "C:\\Döner", "nt", (3, 13)) == ["-e", "."]
    assert darkroom.project_requirements("", False, TABLES, "C:\\Food", "nt", (3, 11)) == ["-e", "."]


def test_download_size_tells_the_big_torch_from_the_small_one():
    small, big = " + torch==2.13.0+cpu", " + nvidia-cudnn-cu13==9.20.0.48\n + torch==2.13.0"
    assert darkroom.download_size(small, "cpu", "Linux") == "about 400 MB to download"
    assert darkroom.download_size(big, "cuda", "Linux") == "up to 3 GB to download"
    assert "could not be reached" in darkroom.download_size(big, "cpu", "Linux")
    assert darkroom.disk_gb(big) > darkroom.disk_gb(small)


def test_dependencies_of_the_real_project_are_found_and_all_pinned():
    tables = darkroom.dependency_tables(ROOT)
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    bare = {name.split(">")[0].lower().replace("_", "-") for name in tables["dependencies"] + tables["dev"]}
    assert bare <= pinned
    assert not [line for line in lines if "+" in line or "://" in line]


# ---- pip's settings for uv

PIP_CONFIG = """\
:env:.cert='/etc/company.pem'
global.cert='/etc/other.pem'
global.constraint='/etc/caps.txt'
global.default-timeout='60'
global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'
global.find-links='/srv/wheels /srv/more'
global.index-url='https://mirror.example/simple'
install.index-url='https://better.example/simple'
list.format='columns'
"""


def test_pip_settings_take_precedence_as_in_pip():
    settings = darkroom.pip_settings(PIP_CONFIG)
    assert settings["cert"] == "/etc/company.pem"
    assert settings["index-url"] == "https://better.example/simple"
    assert settings["timeout"] == "60"
    assert "format" not in settings


def test_uv_gets_the_indexes_wheels_and_certificate_of_pip():
    environment = darkroom.uv_environment(darkroom.pip_settings(PIP_CONFIG), {})
    assert environment == {
        "UV_DEFAULT_INDEX": "https://better.example/simple",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/srv/wheels,/srv/more",
        "UV_HTTP_TIMEOUT": "60",
        "SSL_CERT_FILE": "/etc/company.pem",
    }


def test_what_is_set_for_uv_itself_stays():
    environ = {"UV_DEFAULT_INDEX": "https://mine.example/simple"}
    assert "UV_DEFAULT_INDEX" not in darkroom.uv_environment(darkroom.pip_settings(PIP_CONFIG), environ)


def test_without_pip_settings_uv_trusts_the_systems_certificates():
    assert darkroom.uv_environment({}, {}) == {"UV_SYSTEM_CERTS": "1"}


def test_uv_command_keeps_our_pins_and_the_users_caps():
    command = darkroom.uv_command(
        "uv", "v/python", True, "constraints.txt", {"constraint": "/caps.txt", "no-index": "1"}
    )
    assert command[:5] == ["uv", "pip", "install", "--python", "v/python"]
    assert command[5:7] == ["--torch-backend", "auto"]
    assert [command[i + 1] for i, word in enumerate(command) if word == "--constraints"] == [
        "constraints.txt",
        os.path.abspath("/caps.txt"),
    ]
    assert command[-1] == "--no-index"
    assert "--torch-backend" not in darkroom.uv_command("uv", "p", False, None, {})


# ---- what the app inherits


def test_app_finds_its_own_packages_whatever_lies_in_the_callers_folder():
    environ = {"PYTHONPATH": "/ros", "PYTHONHOME": "/x", "LANG": "de_DE"}
    environment = darkroom.app_environment(environ, ROOT, testing=False)
    assert environment["PYTHONPATH"] == str(ROOT)
    assert environment["PYTHONSAFEPATH"] == "1"
    assert "PYTHONHOME" not in environment and environment["LANG"] == "de_DE"


def test_arguments_exit_code_and_current_folder_reach_the_command(tmp_path):
    program = "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit(7)"
    folder = tmp_path / "Döner box"
    folder.mkdir()
    launch = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import os, darkroom; " + (
        f"sys.exit(darkroom.hand_over([sys.executable, '-c', {program!r}, 'a b', 'ü'], dict(os.environ), None))"
    )
    utf8 = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", launch], cwd=folder, capture_output=True, encoding="utf-8", env=utf8)
    assert done.returncode == 7
    assert done.stdout.strip() == f"{folder} ['a b', 'ü']"


# ---- environments in every state


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for an environment; `install` only notes that it was called, in the file `installs`."""

    def note(venv: Path, dev: bool) -> None:
        (venv / darkroom.UNFINISHED).touch()
        with (tmp_path / "installs").open("a") as file:
            file.write("dev\n" if dev else "app\n")

    monkeypatch.setattr(darkroom, "install", note)
    monkeypatch.setattr(darkroom, "has_module", lambda name: False)  # an environment without pip is made in no time
    return tmp_path / "Döner box" / "venv"


def installs(venv: Path) -> list[str]:
    return (venv.parent.parent / "installs").read_text().split()


def test_second_start_installs_nothing(venv):
    darkroom.prepare(venv, dev=False)
    darkroom.prepare(venv, dev=False)
    assert installs(venv) == ["app"]


def test_tests_add_what_they_need_once_and_updates_keep_it(venv):
    darkroom.prepare(venv, dev=False)
    darkroom.prepare(venv, dev=True)
    darkroom.prepare(venv, dev=False)
    assert installs(venv) == ["app", "dev"]


def test_changed_requirements_are_installed_into_the_same_environment(venv, monkeypatch):
    darkroom.prepare(venv, dev=True)
    (venv / "kept").touch()
    monkeypatch.setattr(darkroom, "dependency_tables", lambda root: {"dependencies": ["torch>=3"]})
    darkroom.prepare(venv, dev=False)
    assert installs(venv) == ["dev", "dev"]
    assert (venv / "kept").exists()


def test_interrupted_setup_starts_again_from_an_empty_folder(venv, monkeypatch):
    def killed(venv: Path, dev: bool) -> None:
        (venv / darkroom.UNFINISHED).touch()
        (venv / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(darkroom, "install", killed)
        darkroom.prepare(venv, dev=False)
    assert not darkroom.is_ready(venv, dev=False)
    darkroom.prepare(venv, dev=False)
    assert darkroom.is_ready(venv, dev=False)
    assert not (venv / "half").exists()


def test_vanished_interpreter_makes_a_new_environment(venv):
    darkroom.prepare(venv, dev=False)
    darkroom.venv_python(venv, os.name).unlink()
    darkroom.prepare(venv, dev=False)
    assert installs(venv) == ["app", "app"]
    assert darkroom.venv_works(venv)


def test_folder_that_is_no_environment_is_never_deleted(venv):
    venv.mkdir(parents=True)
    (venv / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="not a Python environment"):
        darkroom.prepare(venv, dev=False)
    assert (venv / "thesis.txt").read_text() == "years of work"


def test_folder_that_cannot_be_written_is_named_in_a_sentence(venv):
    venv.parent.mkdir()
    venv.write_text("a file in the way")
    with pytest.raises(SetupError, match="DARKROOM_VENV"):
        darkroom.prepare(venv, dev=False)


# ---- which plan is taken


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A machine whose uv answers each dry run as the test says; `commands` are the installs that were run."""
    machine = {"dry": lambda command: "", "commands": [], "code": 0}

    def run_quietly(command, environment):
        error = machine["dry"](command)
        return subprocess.CompletedProcess(command, 1 if error else 0, "", error or " + torch==2.13.0+cpu")

    def run(command, **options):
        machine["commands"].append(command)
        return subprocess.CompletedProcess(command, machine["code"])

    monkeypatch.setattr(darkroom, "find_pip", lambda venv: ["pip"])
    monkeypatch.setattr(darkroom, "find_uv", lambda venv, pip: "uv")
    monkeypatch.setattr(darkroom, "pip_config_text", lambda pip: "")
    monkeypatch.setattr(darkroom, "accelerator_here", lambda: "cpu")
    monkeypatch.setattr(darkroom.platform, "system", lambda: "Linux")
    monkeypatch.setattr(darkroom, "check_disk", lambda venv, needed_gb: None)
    monkeypatch.setattr(darkroom, "run_quietly", run_quietly)
    monkeypatch.setattr(darkroom.subprocess, "run", run)
    return machine


def test_unreachable_torch_index_falls_back_to_plain_defaults(tools, tmp_path):
    tools["dry"] = lambda command: "dns error" if "--torch-backend" in command else ""
    darkroom.install(tmp_path, dev=False)
    (command,) = tools["commands"]
    assert command[0] == "uv" and "--torch-backend" not in command
    assert command[command.index("--constraints") + 1] == "constraints.txt"


def test_old_driver_gets_an_older_torch(tools, tmp_path):
    tools["dry"] = lambda command: "No solution found" if "constraints.txt" in command else ""
    darkroom.install(tmp_path, dev=True)
    (command,) = tools["commands"]
    loose = Path(command[command.index("--constraints") + 1]).read_text()
    assert "--torch-backend" in command and "pytest>=8" in command
    assert "\ntorch==" not in loose and "\ntransformers==" in loose


def test_pip_is_tried_when_uv_cannot(tools, tmp_path):
    tools["dry"] = lambda command: "401 Unauthorized"
    darkroom.install(tmp_path, dev=False)
    assert [command[0] for command in tools["commands"]] == ["pip"]


def test_failed_installation_shows_the_tools_words_and_leaves_no_finished_environment(tools, tmp_path):
    tools["dry"] = lambda command: "401 Unauthorized"
    tools["code"] = 1
    with pytest.raises(SetupError, match="401 Unauthorized"):
        darkroom.install(tmp_path, dev=False)
    assert (tmp_path / darkroom.UNFINISHED).exists() and not (tmp_path / darkroom.STAMP).exists()


def test_full_disk_is_told_before_the_download(tmp_path):
    with pytest.raises(SetupError, match="disk space"):
        darkroom.check_disk(tmp_path, needed_gb=10**9)


def test_stamp_survives_a_reader_at_any_time(tmp_path):
    darkroom.write_stamp(tmp_path, {"dev": True})
    assert json.loads((tmp_path / darkroom.STAMP).read_text()) == {"dev": True}
    (tmp_path / darkroom.STAMP).write_text("{half")
    assert darkroom.read_stamp(tmp_path) == {}


@pytest.mark.parametrize(("cores", "count"), [(None, "1"), (1, "1"), (2, "2"), (64, "4")])
def test_tests_run_side_by_side_on_a_few_cores(cores, count):
    assert darkroom.workers(cores)[:2] == ["-n", count]
