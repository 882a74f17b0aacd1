"""What this machine has, what Darkroom will use of it, and what is wrong with it."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from app.paths import ROOT, Home
from trainers import computer
from trainers.capabilities import precision_of, untried

GB = 2**30
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pydantic", "pillow")
OPTIONAL = ("xformers", "bitsandbytes")
PROBE = """
import importlib
import json
facts = {}
try:
    import torch
    facts["version"] = torch.__version__
    facts["cuda_build"] = torch.version.cuda
    facts["rocm_build"] = torch.version.hip
    facts["mps"] = torch.backends.mps.is_available()
    facts["threads"] = torch.get_num_threads()
    facts["gpus"] = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        part = torch.cuda.get_device_properties(i)
        free, total = torch.cuda.mem_get_info(i)
        facts["gpus"].append({"name": part.name, "capability": [part.major, part.minor], "memory": total, "free": free,
                              "chip": getattr(part, "gcnArchName", "")})
    facts["xpu"] = torch.xpu.get_device_name(0) if torch.xpu.is_available() else ""
except Exception as error:
    facts["error"] = f"{type(error).__name__}: {error}"
for name, module, used in (  # what a run takes of them: xformers begins to load its kernels in `ops`
    ("xformers", "xformers.ops", "memory_efficient_attention"),
    ("bitsandbytes", "bitsandbytes.optim", "AdamW8bit"),
):
    facts[name] = f"{module} ends the program that loads it"
    print(json.dumps(facts), flush=True)  # what is known where it does
    try:
        getattr(importlib.import_module(module), used)
        facts[name] = True
    except Exception as error:
        facts[name] = str(error) or type(error).__name__
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Finding:
    """Something wrong with the machine or the installation; `fatal` ones keep Darkroom from training."""

    message: str
    hint: str
    fatal: bool = False


def facts(home: Home, probe: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
    """Plain values about this machine; `probe` gives those that only torch knows."""
    disk = shutil.disk_usage(home.root)
    return {
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": platform.python_version(),
        "cpu": {
            "name": _cpu_name(),
            "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
            "threads": os.cpu_count(),
        },
        "memory_gb": round(computer.total_bytes() / GB, 1),
        "memory_free_gb": round(computer.available_bytes() / GB, 1),
        "home": str(home.root),
        "disk_free_gb": round(disk.free / GB, 1),
        "driver_gpus": _driver_gpus(),
        "libraries": {name: _version(name) for name in (*LIBRARIES, *OPTIONAL)},
        "base": str(ROOT / "assets" / "base") if (ROOT / "assets" / "base" / "model_index.json").exists() else "",
        "torch": (probe or probe_torch)(),
    }


def probe_torch() -> dict[str, Any]:
    """What torch says about itself and its devices, asked in another process: this one stays free of it."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=180)
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    except (ValueError, IndexError):
        words = done.stderr.strip().splitlines()
        return {"error": words[-1] if words else f"torch ended with exit code {done.returncode}"}


def will_use(found: dict[str, Any]) -> dict[str, str]:
    """Device, precision, attention and optimizer memory that training will use with settings on auto."""
    torch = found["torch"]
    gpus, kind = torch.get("gpus") or [], _kind(torch)
    if gpus:
        device = gpus[0]["name"]
        precision = precision_of(kind, device, tuple(gpus[0]["capability"]), gpus[0].get("chip", ""))
    else:
        threads = torch.get("threads", found["cpu"]["cores"])
        cpu = f"CPU ({threads} thread{'s' * (threads != 1)})"
        device, precision = {"xpu": torch.get("xpu"), "mps": "Apple GPU (mps)"}.get(kind, cpu), precision_of(kind)
    remark = {"but": untried(kind)} if untried(kind) else {}
    extras = [name for name in OPTIONAL if torch.get(name) is True]
    return {
        "device": device,
        "precision": precision,
        "attention": "SDPA, built into torch: its kernels are tried when a run begins; " + _xformers(found),
        "8-bit AdamW": "by choice" if gpus and "bitsandbytes" in extras else "not here; plain AdamW stands in",
        **remark,
    }


def _xformers(found: dict[str, Any]) -> str:
    if found["torch"].get("xformers") is True:
        return "xformers by choice"
    return "xformers does not load" if found["libraries"].get("xformers") else "xformers is not installed, nor needed"


def _kind(torch: dict[str, Any]) -> str:
    """cuda, rocm, xpu, mps or cpu: what a run on settings of auto takes."""
    if torch.get("gpus"):
        return "rocm" if torch.get("rocm_build") else "cuda"
    return "xpu" if torch.get("xpu") else "mps" if torch.get("mps") else "cpu"


def findings(found: dict[str, Any]) -> list[Finding]:
    """Everything that is wrong, the worst first."""
    torch, driver = found["torch"], found["driver_gpus"]
    mend = "Start Darkroom through darkroom.py, which installs what is missing."
    result = []
    if "error" in torch:
        result.append(Finding(f"PyTorch does not start: {torch['error']}", mend, fatal=True))
    missing = [name for name in LIBRARIES if not found["libraries"].get(name)]
    if missing:
        result.append(Finding(f"These libraries are not installed: {', '.join(missing)}.", mend, fatal=True))
    if not found["base"]:
        result.append(
            Finding("The built-in base model is missing.", "Get a whole copy of Darkroom: assets/base is not there.")
        )
    if driver and "error" not in torch and not torch.get("gpus"):
        build = "has no GPU support" if not torch.get("cuda_build") else "does not reach it"
        hint = "Delete the .venv folder and start darkroom.py again; if that does not help, update the driver."
        result.append(Finding(f"There is a {driver[0]}, but this PyTorch {build}, so training runs on the CPU.", hint))
    for gpu in torch.get("gpus") or []:
        if gpu["free"] < 0.5 * gpu["memory"]:
            busy = f"{(gpu['memory'] - gpu['free']) / GB:.1f} of {gpu['memory'] / GB:.1f} GB of {gpu['name']} are taken"
            result.append(Finding(f"{busy} by other programs.", "Close image programs and games before training."))
    for name in OPTIONAL:
        if found["libraries"].get(name) and torch.get(name) not in (True, None):
            reason = str(torch[name]).splitlines()[0][:160]
            result.append(
                Finding(f"{name} is installed but does not load: {reason}", f"Training works without {name}.")
            )
    if found["memory_free_gb"] < 3:
        result.append(Finding(f"Only {found['memory_free_gb']} GB of memory are free.", "Close other programs."))
    if found["disk_free_gb"] < 2:
        hint = "Make room, or name a home folder on another disk with --home."
        result.append(Finding(f"Only {found['disk_free_gb']} GB are free on the disk of {found['home']}.", hint))
    return result


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver_gpus() -> list[str]:
    """Names of NVIDIA cards as the driver knows them, whether or not torch reaches them."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    try:
        command = [tool, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
