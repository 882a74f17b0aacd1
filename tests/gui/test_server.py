"""What the window's server gives to whom: pictures of the project folders, and nothing to other hosts' pages."""

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from app import projects
from app.paths import CONCEPTS, ROOT, Home
from app.window import HOST, listen
from trainers.errors import UserError


def answer(address: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, type and body of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, "", b""


def picture(served, path: Path, side: int = 0) -> tuple[int, str, bytes]:
    return answer(f"{served.address}darkroom/picture?{urllib.parse.urlencode({'path': path, 'side': side})}")


def test_only_pictures_of_the_project_folders_are_served(served, home, tmp_path_factory):
    linked, other = tmp_path_factory.mktemp("linked"), tmp_path_factory.mktemp("other")
    for folder in (linked, other):
        Image.new("RGB", (900, 600), "red").save(folder / "cat's 漢字.png")
    (linked / "cat.txt").write_text("a secret", "utf-8")
    projects.create(Home(home), "Cat", linked, "object")
    (linked / "stolen.png").symlink_to(other / "cat's 漢字.png")
    assert picture(served, linked / "cat's 漢字.png")[:2] == (200, "image/png")
    status, kind, small = picture(served, linked / "cat's 漢字.png", side=200)
    assert (status, kind) == (200, "image/webp") and len(small) < 5000
    assert picture(served, next((CONCEPTS / "mascot").glob("*.png")))[0] == 200
    for hidden in (other / "cat's 漢字.png", linked / "stolen.png", linked / "cat.txt", linked / "none.png", home):
        assert picture(served, hidden)[0] == 404
    assert picture(served, linked / ".." / other.name / "cat's 漢字.png")[0] == 404


def test_another_sites_name_is_refused(served):
    assert answer(served.address)[0] == 200
    assert answer(served.address, Host="evil.example")[0] == 400


def test_a_file_of_the_machine_cannot_be_fetched_through_gradio(served, tmp_path_factory):
    secret = tmp_path_factory.mktemp("private") / "secret.txt"
    secret.write_text("a secret", "utf-8")
    for path in (secret, ROOT / "pyproject.toml"):
        assert answer(f"{served.address}gradio_api/file={urllib.parse.quote(str(path))}")[0] in (403, 404)


def test_a_taken_port_is_a_sentence_and_else_the_next_one_is_used():
    with listen() as first, listen() as second:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == HOST and second.getsockname()[1] != port
        with pytest.raises(UserError, match=f"Port {port} cannot be used"):
            listen(port)


def test_the_windows_process_is_free_of_torch(home):
    program = """
import json, sys, urllib.request
from app.gui.server import serving
from app.paths import find_home
from app.window import listen
with listen() as listening, serving(find_home(), listening) as served:
    page = urllib.request.urlopen(served.address).read().decode()
    heavy = [name for name in ("torch", "diffusers", "transformers", "peft") if name in sys.modules]
    print(json.dumps({"title": "LoRA Darkroom" in page, "heavy": heavy}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"title": True, "heavy": []}
