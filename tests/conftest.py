"""What every test may rely on: few threads, no network, and a Darkroom home of its own."""

import ipaddress
import os
import socket
from pathlib import Path

import pytest

# Before anything imports torch or the hub: both read these once, when they are imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # tiny models gain nothing from more, and lose much on a busy machine
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # silences its warning about forks


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "How often the slow tests of crashes and the soak try it; for tests/mutated, in thousands of inputs."
    parser.addoption("--rounds", type=int, default=10, help=told)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Darkroom home, also for the processes that a test starts."""
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine can be reached: a test that wants the network fails and says which address it wanted."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(method):
        def call(self: socket.socket, address, *rest):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse_unless_loopback(address[0])
            return method(self, address, *rest)

        return call

    def guarded_look_up(host, *rest, **named):
        refuse_unless_loopback(host)
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


def refuse_unless_loopback(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        local = ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified
    except ValueError:
        local = name in ("localhost", "ip6-localhost", socket.gethostname())
    if not local:
        raise OSError(f"Tests run without a network, and this one wanted {name}.")
