"""What is dropped on the window: nothing of it runs, leaves its folder, or fills the disk."""

import http.client
import io
import os
import pickle
import shutil
import socket
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from app import projects
from app.gui import uploads
from app.gui.server import serving
from app.paths import Home
from app.window import HOST, listen
from tests.gui.attacks import port_of, uploaded, whole
from tests.gui.conftest import PATIENCE
from tests.gui.test_server import answer, cookie

END = b"\r\n--x--\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n'


class Marks:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, file: Path):
        self.file = str(file)

    def __reduce__(self) -> tuple:
        return open, (self.file, "w")


def upload(served, *, name: bytes = b"cat.png", body: bytes = b"x", lengthy: bool = True) -> tuple[int, str]:
    """Status and answer, of a request that says how long it is, or does not."""
    data = PART % name + body + END
    connection = http.client.HTTPConnection(HOST, port_of(served), timeout=60)
    headers = {"Cookie": cookie(served), "Content-Type": "multipart/form-data; boundary=x"}
    pieces = data if lengthy else (data[start : start + 2**16] for start in range(0, len(data), 2**16))
    try:
        connection.request("POST", "/gradio_api/upload", pieces, headers, encode_chunked=not lengthy)
    except ConnectionError:  # it was cut off before its end; the answer may have come all the same
        pass
    response = connection.getresponse()
    said = response.read().decode()
    connection.close()
    return response.status, said


def test_a_pickle_with_the_name_of_a_safetensors_file_is_refused_and_never_loaded(served, open_page, tmp_path):
    marker = tmp_path / "marker"
    evil, packed = pickle.dumps(Marks(marker)), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # as PyTorch packs it
        archive.writestr("archive/data.pkl", evil)
        archive.writestr("archive/version", "3")
    page = open_page(f"{served.address}?show=library")
    page.get_by_role("button", name="Inspect an adapter file").click()
    for name, content in (("bare.safetensors", evil), ("packed.safetensors", packed.getvalue())):
        file = {"name": name, "mimeType": "", "buffer": content}
        page.locator("#page-library input[type=file]").first.set_input_files([file])
        alert = page.get_by_role("alert").filter(has_text=f"{name} is a pickled PyTorch file")
        expect(alert).to_be_visible(timeout=3 * PATIENCE)  # the libraries are loaded for the first one
        page.get_by_role("button", name="Clear").click()
    assert not marker.exists()
    pickle.loads(evil)  # it would have done it
    assert marker.exists()


def test_a_zip_of_pictures_cannot_write_beside_its_project(served, open_page, home: Path):
    project = projects.create_own(served.context.home, "Pets", "object")
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.effect_noise((64, 64), 80).save(picture, "PNG")
    names = ["../../slip.png", "/slip.png", "..\\..\\slip.png", "C:\\slip.png", "a/../../slip.png", "../../slip.txt"]
    with zipfile.ZipFile(packed, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, picture.getvalue() + bytes([number]) if name.endswith("g") else "owned")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    page = open_page(f"{served.address}?project=pets")
    expect(page.get_by_label("Project", exact=True)).to_have_value("Pets")
    page.get_by_role("button", name="Add pictures").click()
    before = whole(home)
    file = {"name": "cats.zip", "mimeType": "application/zip", "buffer": packed.getvalue()}
    page.locator("#page-concept .dr-drop input[type=file]:not([webkitdirectory])").last.set_input_files([file])
    expect(page.get_by_text("6 pictures added")).to_be_visible()
    new = [home / name for name in whole(home).keys() - before.keys()]
    pictures = [file for file in new if "slip" in file.name or "link" in file.name]
    assert len(pictures) >= 6 and {file.parent for file in pictures} == {Path(project.pictures)}
    assert not [file for file in Path(project.pictures).iterdir() if file.is_symlink()]


@pytest.mark.parametrize("lengthy", [True, False], ids=["announced", "in pieces"])
def test_more_than_the_bound_is_refused_in_words_and_nothing_stays(served, home, monkeypatch, lengthy):
    monkeypatch.setattr(uploads, "UPLOAD_BYTES", 2**20)
    monkeypatch.setattr(uploads, "LOOK", 2**18)
    status, said = upload(served, body=bytes(2**21), lengthy=lengthy)
    assert status == 413 and "maximum allowed size" in said and not uploaded(home)
    assert upload(served, body=bytes(2**19), lengthy=lengthy)[0] == 200 and len(uploaded(home)) == 1


@pytest.mark.parametrize("lengthy", [True, False], ids=["announced", "in pieces"])
def test_the_disk_cannot_be_filled_by_uploads(served, home, monkeypatch, lengthy):
    """Not by many either: what is free is looked at each time, and as the bytes come."""
    monkeypatch.setattr(uploads, "LOOK", 2**18)
    monkeypatch.setattr(uploads, "SPARE", shutil.disk_usage(home).free * 2)
    status, said = upload(served, body=bytes(2**20), lengthy=lengthy)
    assert status in (400, 413) and "The disk is too full" in said and not uploaded(home)


def test_an_upload_that_is_cut_off_leaves_nothing(served, home):
    with socket.create_connection((HOST, port_of(served))) as connection:
        lines = ["POST /gradio_api/upload HTTP/1.1", f"Host: {HOST}", f"Cookie: {cookie(served)}"]
        lines += ["Content-Type: multipart/form-data; boundary=x", "Content-Length: 9000000", "", ""]
        connection.sendall("\r\n".join(lines).encode() + PART % b"cat.png")
        connection.sendall(bytes(2**20))
        end = time.monotonic() + PATIENCE / 1000
        while not uploaded(home) and time.monotonic() < end:
            pass
        assert uploaded(home)
    end = time.monotonic() + PATIENCE / 1000
    while uploaded(home) and time.monotonic() < end:
        pass
    assert not uploaded(home)


def test_another_request_than_an_upload_is_bounded_too(served, monkeypatch):
    monkeypatch.setattr(uploads, "OTHER_BYTES", 2**16)
    status, _, said = answer(served, "gradio_api/run/predict", bytes(2**17), Content_Type="application/json")
    assert status == 413 and b"More than" in said


def test_the_name_of_an_upload_leads_nowhere_else(served, home):
    before = whole(home)
    for name in (b"../../../slip.png", b"..\\..\\slip.png", b"/slip.png", b"..", b"a\0b.png", b"%2e%2e%2fslip"):
        assert upload(served, name=name)[0] in (200, 400), name
    assert whole(home) == before and not list(home.parent.glob("slip*"))


def test_uploads_lie_in_a_folder_of_this_account_alone_that_goes_with_the_window(home: Path):
    left = home / "cache" / "uploads" / "killed"
    left.mkdir(parents=True)
    left.with_name("killed.lock").touch()
    with listen() as listening, serving(Home(home), listening) as served:
        assert not left.exists() and upload(served)[0] == 200
        (file,) = uploaded(home)
        folder = home / "cache" / "uploads" / file.relative_to(home / "cache" / "uploads").parts[0]
        assert os.name != "posix" or folder.stat().st_mode & 0o777 == 0o700
        with listen() as other, serving(Home(home), other):  # a second window leaves them
            assert file.exists()
    assert not list((home / "cache" / "uploads").iterdir())


def test_an_uploaded_page_or_drawing_does_not_run_in_the_window(served, open_page):
    """Both may hold scripts, which would do whatever the window does."""
    page = open_page(served.address)
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for name in (b"evil.svg", b"evil.html", b"evil.xml"):
        _, said = upload(served, name=name, body=script)
        path = said.strip('[]"')
        head = page.request.get(f"{served.address}gradio_api/file={path}").headers
        assert head["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert head["content-disposition"].startswith("attachment") and head["x-content-type-options"] == "nosniff"
