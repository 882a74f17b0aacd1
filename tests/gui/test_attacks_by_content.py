"""Scripts in every text that somebody else may have written are shown as text, and the browser is told to run none."""

import json

import pytest
from PIL import Image

from app import projects
from app.about import annotate, record_preset, rename_run
from app.gui.inspect_views import inspected
from app.gui.markup import notice
from app.gui.ways import POLICY, TOLD
from app.paths import Home
from app.queue import Queue
from tests.app.library_runs import make_run
from tests.gui.attacks import another_site
from tests.gui.conftest import let_in

SCRIPT = "</script></textarea>\"'><img src=x onerror=\"window.owned=1\"><svg onload='window.owned=1'>{{7*7}}${owned=1}"
NAME = "<img src=x onerror=window.owned=1>.png"  # what a file can be called
SHOWN = """(id) => {
  const page = document.getElementById(id);
  return page && [page.innerText, ...[...page.querySelectorAll('input, textarea')].map((one) => one.value)]
    .some((text) => text && text.includes('onerror'));
}"""


@pytest.fixture
def hostile(served, tmp_path_factory, monkeypatch) -> None:
    """A project with a run, in which every name and text is a script. Nothing is trained here."""
    monkeypatch.setattr(Queue, "add", lambda self, run: None)
    pictures = tmp_path_factory.mktemp("<img src=x onerror=window.owned=1>")
    Image.effect_noise((64, 64), 80).save(pictures / NAME)
    (pictures / NAME).with_suffix(".txt").write_text(SCRIPT, "utf-8")
    project = projects.create(served.context.home, SCRIPT, pictures, "object", SCRIPT[:60])
    run = make_run(project, "run")
    rename_run(run, SCRIPT)
    annotate(run, SCRIPT)
    record_preset(run, SCRIPT, SCRIPT)
    lines = [json.loads(line) for line in run.events.read_text("utf-8").splitlines()]
    for line in lines:
        line.update({key: SCRIPT for key in ("prompt", "device") if key in line})
    failed = {"seq": len(lines), "time": 99.0, "type": "failed", "message": SCRIPT, "hint": SCRIPT}
    run.events.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, failed]), "utf-8")


@pytest.mark.parametrize("show", ["concept", "train", "monitor", "results", "library"])
def test_no_page_runs_a_script_that_lies_in_a_text(served, hostile, open_page, show):
    slug = projects.list_projects(served.context.home)[0].slug
    run = next((served.context.home.projects / slug / "runs").iterdir()).name
    page = open_page(f"{served.address}?show={show}&project={slug}&run={slug}/{run}")
    page.wait_for_function(SHOWN, arg=f"page-{show}")
    assert page.evaluate("window.owned === undefined")
    assert page.locator("img[src='x'], svg[onload], [onerror*=owned]").count() == 0


def test_metadata_and_messages_are_shown_as_text():
    facts = {
        "family": SCRIPT,
        "words": {"trigger": SCRIPT, "tags": {SCRIPT: 3}, "different tags": 1},
        SCRIPT: SCRIPT,
        "problems": [{"says": SCRIPT}],
    }
    facts |= {"interfaces": {SCRIPT: SCRIPT}, "unmatched keys": {SCRIPT: [SCRIPT]}}
    for html in (inspected(SCRIPT, facts), notice(SCRIPT, SCRIPT, "error")):
        assert "<img" not in html and "<svg" not in html and "</script" not in html and "&lt;img" in html


def test_every_answer_says_what_its_page_may_do(served, browser, open_page):
    """Those that refuse as well."""
    stranger, page = browser.new_context(), open_page(served.address)
    for path in ("", "config", "gradio_api/info", "darkroom/picture?path=x"):
        for told in (page.request.get(served.address + path), stranger.request.get(served.address + path)):
            assert told.headers.items() >= {**TOLD, "content-security-policy": POLICY}.items()
    stranger.close()


def test_a_script_that_came_in_after_all_would_reach_no_other_place(served, browser, home):
    context = browser.new_context()
    let_in(context, served.address, Home(home))
    page = context.new_page()
    page.goto(served.address)
    asked: list[str] = []
    with another_site() as port:
        page.on("response", lambda one: asked.append(one.url) if f":{port}/" in one.url else None)
        reached = page.evaluate(
            """async (there) => {
              const tried = [fetch(there, {mode: 'no-cors'}).then(() => 'fetched', () => '')];
              for (const name of ['img', 'script', 'iframe']) tried.push(new Promise((ready) => {
                const made = Object.assign(document.createElement(name), {src: there});
                document.addEventListener('securitypolicyviolation', () => ready(''), {once: true});
                made.onload = () => ready(name);
                document.body.append(made);
              }));
              return (await Promise.all(tried)).join('');
            }""",
            f"http://127.0.0.1:{port}/",
        )
    assert reached == "" and asked == []
    context.close()
