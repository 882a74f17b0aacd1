"""Starts Darkroom with nothing but Python: makes `.venv`, installs what the project needs, runs the command line.

`python3 darkroom.py ARGS` runs `darkroom ARGS`; `python3 darkroom.py test ARGS` runs the tests (`pytest ARGS`).
Only the standard library, in syntax that Python 3.8 still reads: an old Python gets a sentence, not a SyntaxError.
DARKROOM_VENV names another folder for the environment.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple  # noqa: UP035 - Python 3.8 reads this line

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
STAMP = "darkroom-setup.json"  # in the environment: what was installed there; written last
UNFINISHED = "darkroom-setup-unfinished"  # in the environment: lies there from before the first change until the stamp


class SetupError(Exception):
    """Why Darkroom cannot be set up here and what to do about it, in sentences for the user."""


class Plan(NamedTuple):
    """One way to install: which tool, where torch comes from, which tested versions hold, and with which extras."""

    tool: str = "uv"  # uv or pip
    torch_index: bool = False  # True: uv looks at the machine and takes torch from PyTorch's own index for it
    pins: str = "all"  # all | all but torch | none
    extras: str = ""


def main(arguments: list[str]) -> int:
    version, is_64bit = sys.version_info[:2], sys.maxsize > 2**32
    newer = newer_python() if version < OLDEST_PYTHON else ""
    problem = unsupported(version, platform.system(), platform.machine(), is_64bit, newer)
    if problem:
        say(problem)
        return 1
    testing = arguments[:1] == ["test"]
    venv = venv_folder(os.environ, ROOT)
    try:
        prepare(venv, dev=testing)
        if testing:
            install_system_packages()
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("\nThe setup was interrupted. Start Darkroom again to go on.")
        return 130
    tests = [*([] if "--pdb" in arguments else workers(os.cpu_count())), *arguments[1:]]
    command = ["-m", "pytest", *tests] if testing else ["-m", "app.cli", *arguments]
    environment = app_environment(os.environ, ROOT, testing)
    return hand_over([str(venv_python(venv, os.name)), *command], environment, ROOT if testing else None)


def prepare(venv: Path, dev: bool) -> None:
    """Bring the environment up to what pyproject.toml and constraints.txt ask for; nothing to do on most starts.

    A setup that was cut off is started again from an empty folder. Raises SetupError.
    """
    if is_ready(venv, dev):
        return
    with setup_lock(venv):
        if is_ready(venv, dev):  # another start finished it while this one waited
            return
        try:
            set_up(venv, dev)
        except OSError as error:
            raise SetupError(
                f"Darkroom cannot be set up in {venv}: {error}.\nClose other Darkroom windows, make room on the disk, "
                "or name another folder in the environment variable DARKROOM_VENV."
            ) from error


def is_ready(venv: Path, dev: bool) -> bool:
    stamp = read_stamp(venv)
    return (
        venv_python(venv, os.name).exists()
        and not (venv / UNFINISHED).exists()
        and stamp.get("requirements") == requirements_key(venv)
        and (stamp.get("dev", False) or not dev)
    )


def set_up(venv: Path, dev: bool) -> None:
    dev = dev or read_stamp(venv).get("dev", False)
    if venv_works(venv):
        say("Updating Darkroom's libraries to what this version asks for.")
    else:
        say("Setting up Darkroom (first start; later starts are immediate).")
        make_venv(venv)
    install(venv, dev)
    write_stamp(venv, {"requirements": requirements_key(venv), "dev": dev})
    with contextlib.suppress(FileNotFoundError):
        (venv / UNFINISHED).unlink()
    say("Darkroom is set up.")


def install(venv: Path, dev: bool) -> None:
    """Take the first plan that resolves and installs. Raises SetupError with the tools' own words when none does."""
    python, pip, accelerator = str(venv_python(venv, os.name)), find_pip(venv), accelerator_here()
    uv = find_uv(venv, pip)
    settings = pip_settings(pip_config_text(pip))
    environment = {**os.environ, **uv_environment(settings, os.environ)}
    pins = {"all": "constraints.txt", "all but torch": str(write_loose_constraints(venv)), "none": None}
    errors, torch_index_answers, unsolvable = [], True, not uv
    for plan in plans(accelerator, platform.system()):
        if not (uv if plan.tool == "uv" else pip) or (plan.torch_index and not torch_index_answers):
            continue
        if plan.pins == "none":
            if not unsolvable:
                continue  # no connection: other versions cannot be had either
            say("The tested versions of the libraries cannot be had here; taking the newest ones instead.")
        wanted = project_requirements(
            plan.extras, dev, dependency_tables(ROOT), str(ROOT), os.name, sys.version_info[:2]
        )
        resolved = ""
        if plan.tool == "pip":
            command = [
                *pip,
                "install",
                "--retries",
                "1",
                *(["--constraint", pins[plan.pins]] if pins[plan.pins] else []),
                *wanted,
            ]
        else:
            command = [*uv_command(uv, python, plan.torch_index, pins[plan.pins], settings), *wanted]
            dry = run_quietly([*command, "--dry-run"], environment)
            if dry.returncode:
                errors.append(dry.stderr.strip())
                unsolvable = unsolvable or "No solution found" in dry.stderr
                torch_index_answers = torch_index_answers and "No solution found" in dry.stderr
                continue
            resolved = dry.stderr
        say(f"Installing the libraries: {download_size(resolved, accelerator, platform.system())}.")
        check_disk(venv, disk_gb(resolved))
        (venv / UNFINISHED).touch()
        done = subprocess.run(command, env=environment, cwd=str(ROOT), stdout=sys.stderr)
        if done.returncode == 0:
            return
        errors.append(f"{plan.tool} stopped with exit code {done.returncode}; its messages stand above.")
    raise SetupError(
        "The libraries could not be installed:\n" + "\n".join(dict.fromkeys(errors[-2:])) + "\nCheck the internet "
        "connection (pip's index and proxy settings are respected) and the free disk space, then start Darkroom again."
    )


# ---- decisions: pure functions of what they are given


def unsupported(version: tuple, system: str, machine: str, is_64bit: bool, newer: str = "") -> str:
    """Why Darkroom can never run with this Python, or an empty string; `newer` names a better one, if there is one."""
    if tuple(version) < OLDEST_PYTHON:
        advice = f"Start it with {newer}" if newer else "Install a newer one from python.org and start it with that"
        wanted, found = (".".join(map(str, numbers)) for numbers in (OLDEST_PYTHON, version))
        return f"Darkroom needs Python {wanted} or newer, and this is Python {found}. {advice}."
    if not is_64bit:
        return "Darkroom needs a 64-bit Python, and this is a 32-bit one. Install the 64-bit one from python.org."
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch, which Darkroom needs, no longer comes for Intel Macs. If this Mac has an Apple chip, this Python "
            "runs in Intel emulation: install the universal one from python.org."
        )
    return ""


def venv_folder(environ: Mapping[str, str], root: Path) -> Path:
    chosen = environ.get("DARKROOM_VENV")
    return Path(os.path.abspath(os.path.expanduser(chosen))) if chosen else root / ".venv"


def venv_python(venv: Path, os_name: str) -> Path:
    return venv / "Scripts" / "python.exe" if os_name == "nt" else venv / "bin" / "python"


def detect_accelerator(system: str, machine: str, has_command: Mapping[str, bool], has_path: Mapping[str, bool]) -> str:
    """cuda, rocm, mps or cpu, judged by the traces of the driver, without which a card is useless."""
    if system == "Darwin":
        return "mps" if machine == "arm64" else "cpu"
    if has_command["nvidia-smi"] or has_path["/proc/driver/nvidia/version"]:
        return "cuda"
    return "rocm" if system == "Linux" and has_path["/dev/kfd"] else "cpu"


def plans(accelerator: str, system: str) -> list[Plan]:
    """Ways to install, best first. PyTorch's own index has a build for each driver, and a small CPU one."""
    plain = [Plan(), Plan(tool="pip"), Plan(pins="none"), Plan(tool="pip", pins="none")]
    if accelerator == "mps" or (accelerator == "cpu" and system != "Linux"):
        return plain  # there PyPI's own wheels are the right ones
    tuned = [Plan(torch_index=True), Plan(torch_index=True, pins="all but torch")]  # old drivers need an older torch
    if accelerator == "cuda":
        return [Plan(torch_index=True, extras="gpu"), *tuned, Plan(extras="gpu"), *plain]
    return [*tuned, *plain]


def project_requirements(extras: str, dev: bool, tables: dict, root: str, os_name: str, version: tuple) -> list[str]:
    """The project, editable, and its tests' needs. "." is the current folder: no letter in the path needs quoting.

    Python before 3.13 reads an editable install's .pth file in the Windows code page and can die of a path with other
    letters. There only the requirements are installed; PYTHONPATH leads to the project anyway.
    """
    if os_name == "nt" and tuple(version) < (3, 13) and not root.isascii():
        wanted = tables["dependencies"] + (tables["optional-dependencies"][extras] if extras else [])
    else:
        wanted = ["-e", f".[{extras}]" if extras else "."]
    return wanted + (tables["dev"] if dev else [])


def uv_command(uv: str, python: str, torch_index: bool, constraints: str | None, pip: Mapping[str, str]) -> list[str]:
    command = [uv, "pip", "install", "--python", python]
    command += ["--torch-backend", "auto"] if torch_index else []
    command += ["--constraints", constraints] if constraints else []
    for extra in pip.get("constraint", "").split():
        command += ["--constraints", extra if "://" in extra else os.path.abspath(extra)]
    return command + (["--no-index"] if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else [])


def pip_settings(text: str) -> dict[str, str]:
    """`pip config list` as one dict: `install.x` beats `global.x`, and the environment's `:env:.x` beats both."""
    settings = {}
    for section in ("global.", "install.", ":env:."):
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                with contextlib.suppress(ValueError, SyntaxError):
                    settings[name[len(section) :].replace("default-timeout", "timeout")] = str(ast.literal_eval(value))
    return settings


def uv_environment(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings under uv's names, because uv does not read pip's configuration; what is set for uv already stays.

    Without this an office network's mirror, proxy or certificate would work for pip and fail for uv.
    """
    found = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        # pip takes the best version of all indexes; uv's own default stops at the first index that has the name.
        "UV_INDEX_STRATEGY": "unsafe-best-match" if pip.get("extra-index-url") else None,
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout"),
        "UV_SYSTEM_CERTS": None if pip.get("cert") else "1",  # as pip: trust what the operating system trusts
        "SSL_CERT_FILE": pip.get("cert"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
        "HTTP_PROXY": pip.get("proxy"),
        "HTTPS_PROXY": pip.get("proxy"),
    }
    return {name: value for name, value in found.items() if value and name not in environ}


def app_environment(environ: Mapping[str, str], root: Path, testing: bool) -> dict[str, str]:
    """What the app inherits: it finds its own packages first, whatever lies in the folder it is called from."""
    kept = {name: value for name, value in environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    return {"PYTHONUTF8": "1", **kept, "PYTHONPATH": str(root), **({} if testing else {"PYTHONSAFEPATH": "1"})}


def is_bulky(resolved: str) -> bool:
    """Whether uv's list of packages holds a torch with the libraries of a graphics card."""
    return any(sign in resolved for sign in ("nvidia-cudnn", "+cu", "+rocm"))


def download_size(resolved: str, accelerator: str, system: str) -> str:
    """In words; an empty list of packages means that nobody knows yet."""
    if is_bulky(resolved) or (not resolved and system == "Linux"):
        reason = "" if accelerator != "cpu" else ", because PyTorch's small build could not be reached"
        return "up to 3 GB to download" + reason
    return "about 400 MB to download"


def disk_gb(resolved: str) -> int:
    return 12 if is_bulky(resolved) else 3  # installed size, and the downloads beside it


def requirements_key(venv: Path) -> str:
    """A fingerprint of all that an installation depends on: requirements, versions, the interpreter and the folder."""
    parts = [dependency_tables(ROOT), (ROOT / "constraints.txt").read_text("utf-8"), str(ROOT), interpreter(venv)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def dependency_tables(root: Path) -> dict:
    import tomllib  # noqa: PLC0415 - Python 3.8 has no tomllib and must get as far as the sentence in unsupported()

    pyproject = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    project = pyproject["project"]
    tables = {
        name: project.get(name) for name in ("requires-python", "dependencies", "optional-dependencies", "scripts")
    }
    return {**tables, "build": pyproject["build-system"], "dev": pyproject["dependency-groups"]["dev"]}


# ---- the environment folder


def make_venv(venv: Path) -> None:
    """An empty environment in place of whatever half-made one lies there. Never deletes a folder of another kind."""
    if venv.exists() and any(venv.iterdir()):
        if not any((venv / sign).exists() for sign in (UNFINISHED, "pyvenv.cfg")):
            raise SetupError(f"{venv} is not a Python environment. Name an empty or new folder in DARKROOM_VENV.")
        shutil.rmtree(venv)
    venv.mkdir(parents=True, exist_ok=True)
    (venv / UNFINISHED).touch()
    # Debian splits ensurepip off into python3-venv; uv can come from elsewhere then.
    options = [] if has_module("ensurepip") else ["--without-pip"]
    done = run_quietly([sys.executable, "-m", "venv", *options, str(venv)], dict(os.environ))
    if done.returncode:
        raise SetupError(f"Python could not make an environment in {venv}:\n{(done.stderr or done.stdout).strip()}")


def venv_works(venv: Path) -> bool:
    """Whether the environment is whole and its interpreter still the one it was made for."""
    if (venv / UNFINISHED).exists() or not (venv / "pyvenv.cfg").exists() or not venv_python(venv, os.name).exists():
        return False
    check = "import sys; print(sys.version_info >= (3, 11), '%d.%d.' % sys.version_info[:2])"
    done = run_quietly([str(venv_python(venv, os.name)), "-c", check], dict(os.environ))
    ok, _, version = done.stdout.strip().partition(" ")
    return ok == "True" and version in (venv / "pyvenv.cfg").read_text("utf-8")


def interpreter(venv: Path) -> str:
    config = venv / "pyvenv.cfg"
    return os.path.realpath(venv_python(venv, os.name)) + (config.read_text("utf-8") if config.exists() else "")


def find_pip(venv: Path) -> list[str]:
    """The command that is pip for the environment (its own, else that of the launching Python), or an empty list."""
    python = str(venv_python(venv, os.name))
    if run_quietly([python, "-c", "import pip"], dict(os.environ)).returncode == 0:
        return [python, "-m", "pip"]
    return [sys.executable, "-m", "pip", "--python", python] if has_module("pip") else []


def find_uv(venv: Path, pip: list[str]) -> str | None:
    """uv in the environment, else one on the PATH, else None. Raises SetupError when nothing can be installed."""
    own = venv_python(venv, os.name).with_name("uv.exe" if os.name == "nt" else "uv")
    if own.exists():
        return str(own)
    command = [*pip, "install", "--retries", "2", "--constraint", "constraints.txt", "uv"]
    done = run_quietly(command, dict(os.environ)) if pip else None
    found = str(own) if own.exists() else shutil.which("uv")
    if not found and not done:
        raise SetupError(
            "This Python comes without pip and ensurepip. Install them (Debian, Ubuntu: sudo apt install python3-venv) "
            "and start Darkroom again."
        )
    broken = re.search("connection broken by (.*)", done.stderr) if done else None  # pip's own words, in every version
    if not found and broken:
        raise SetupError(
            "The package index cannot be reached, so the libraries cannot be installed. Check the internet connection "
            f"(pip's index and proxy settings are respected), then start Darkroom again.\nDetails: {broken[1]}"
        )
    return found


def write_loose_constraints(venv: Path) -> Path:
    """The tested versions without torch's, for graphics drivers that need an older torch."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    loose = venv / "constraints-without-torch.txt"
    loose.write_text("\n".join(line for line in lines if not line.startswith(("torch=", "triton="))), "utf-8")
    return loose


def read_stamp(venv: Path) -> dict:
    try:
        return json.loads((venv / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_stamp(venv: Path, stamp: dict) -> None:
    new = venv / (STAMP + ".new")
    new.write_text(json.dumps(stamp), "utf-8")
    os.replace(new, venv / STAMP)


# ---- the machine


def accelerator_here() -> str:
    commands = {name: shutil.which(name) is not None for name in ("nvidia-smi",)}
    paths = {path: os.path.exists(path) for path in ("/proc/driver/nvidia/version", "/dev/kfd")}
    return detect_accelerator(platform.system(), platform.machine(), commands, paths)


def has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def newer_python() -> str:
    for name in ("python3.13", "python3.12", "python3.11"):
        if shutil.which(name) and run_quietly([name, "-c", ""], dict(os.environ)).returncode == 0:
            return name
    return ""


def pip_config_text(pip: list[str]) -> str:
    """`pip config list`, or nothing where there is no pip."""
    return run_quietly([*pip, "config", "list"], {**os.environ, "PYTHONUTF8": "1"}).stdout if pip else ""


def check_disk(venv: Path, needed_gb: int) -> None:
    free_gb = shutil.disk_usage(str(venv)).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"The libraries need about {needed_gb} GB of disk space, and {venv.parent} has {free_gb:.1f} GB left.\n"
            "Make room there, or name a folder on another disk in the environment variable DARKROOM_VENV."
        )


def workers(cores: int | None) -> list[str]:
    """pytest's arguments for tests side by side: each test takes one core, and each worker a few GB of memory."""
    return ["-n", str(min(cores or 1, 4)), "--dist", "worksteal"]


def install_system_packages() -> None:
    """A browser for the tests of the window, where there is none and apt may install one; pip cannot bring it."""
    if any(shutil.which(name) for name in BROWSERS):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        say("The tests of the window need Chromium; install it, or leave them out with: test -m 'not gui'")
        return
    say("Installing Chromium, which the tests of the window need.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        done = run_quietly(command, environment)
        if done.returncode:
            raise SetupError(f"Chromium could not be installed:\n{(done.stderr or done.stdout).strip()[-800:]}")


@contextlib.contextmanager
def setup_lock(venv: Path) -> Iterator[None]:
    """Two starts at once: the second waits. The operating system frees the lock when a start is killed."""
    name = hashlib.sha256(f"{venv} {os.path.expanduser('~')}".encode()).hexdigest()[:16]
    with open(os.path.join(tempfile.gettempdir(), f"darkroom-setup-{name}.lock"), "a") as file:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 - exists on Windows only

            with contextlib.suppress(OSError):  # gives up after ten seconds: better twice the work than never
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - does not exist on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_quietly(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace", "cwd": str(ROOT)}
    try:
        return subprocess.run(command, env=environment, **options)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def hand_over(command: list[str], environment: dict[str, str], cwd: Path | None) -> int:
    """Become the command (Windows: wait for it), with its exit code, in the caller's folder unless `cwd` is given."""
    if os.name != "nt":
        if cwd:
            os.chdir(cwd)
        os.execve(command[0], command, environment)
    process = subprocess.Popen(command, env=environment, cwd=cwd)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the app too, which saves and ends by itself
            return process.wait()


def say(sentence: str) -> None:
    """Plain sentences on standard error: standard output belongs to the command line (`--json`)."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
