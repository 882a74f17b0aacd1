"""Pages of other sites, in the very browser that the window has let in: nothing changes, and nothing is told them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from app import projects
from app.gui.gate import entrance, key_of
from app.gui.ways import Told, Ways
from tests.gui.attacks import another_site, heard_by, number_of, predict, uploaded, whole

NEW = [None, "Stolen", "object", "", None]  # what "Create project" sends: the place, name, kind, linked folder, files
PLACES = ["", "config", "darkroom/picture?path=x.png", "theme.css", "gradio_api/app_id", "static/img/logo.svg"]
EVENTS = ["gradio_api/upload_progress?upload_id=x", "gradio_api/heartbeat/x", "gradio_api/queue/data?session_hash=x"]
DONE = ["gradio_api/run/predict", "gradio_api/upload", "gradio_api/queue/join", "gradio_api/component_server"]

# Each way answers with what it could read, or with null.
ATTACK = """async ({window: address, places, events, done, body}) => {
  const got = {};
  let frames = 0;
  const wait = (way, start) => new Promise((ready) => {
    setTimeout(() => ready(null), 5000);
    try { start(ready); } catch (error) { ready(null); }
  }).then((found) => { got[way] = found; });
  const ask = (way, place, options) => wait(way, (ready) => fetch(address + place, options).then(
    async (answer) => ready(answer.type === 'opaque' ? null : answer.status + await answer.text()), () => ready(null)
  ));
  const element = (way, name, place, set) => wait(way, (ready) => {
    const made = Object.assign(document.createElement(name), set, {onerror: () => ready(null)});
    made.onload = () => {
      let inside = null;
      try { inside = made.contentDocument?.body?.innerText || null; } catch (error) {}
      ready(name === 'iframe' ? inside : name + ' was loaded');
    };
    made[name === 'link' ? 'href' : 'src'] = address + place;
    document.body.append(made);
  });
  const form = (way, place, type, fields) => wait(way, (ready) => {
    const frame = Object.assign(document.createElement('iframe'), {name: 'frame' + ++frames});
    const made = Object.assign(document.createElement('form'), {
      action: address + place, method: 'post', enctype: type, target: frame.name,
    });
    for (const [name, value] of Object.entries(fields)) {
      const field = Object.assign(document.createElement('input'), {name});
      if (value instanceof File) {
        const files = new DataTransfer();
        files.items.add(value);
        field.type = 'file';
        field.files = files.files;
      } else field.value = value;
      made.append(field);
    }
    document.body.append(frame, made);
    frame.onload = () => { let read = null; try { read = frame.contentDocument?.body?.innerText || null; } catch (e) {}
      ready(read); };
    made.submit();
  });
  const file = () => new File(['x'], 'x.png', {type: 'image/png'});
  const upload = () => { const data = new FormData(); data.append('files', file()); return data; };
  for (const place of [...places, ...events]) {
    await ask('fetch ' + place, place, {credentials: 'include'});
    await ask('fetch without cors ' + place, place, {credentials: 'include', mode: 'no-cors'});
    await element('img ' + place, 'img', place, {});
    await element('script ' + place, 'script', place, {});
    await element('style ' + place, 'link', place, {rel: 'stylesheet'});
    await element('iframe ' + place, 'iframe', place, {});
  }
  for (const place of events) {
    await wait('EventSource ' + place, (ready) => {
      const source = new EventSource(address + place, {withCredentials: true});
      source.onmessage = (message) => ready(message.data);
      source.onerror = () => { source.close(); ready(null); };
    });
    await wait('WebSocket ' + place, (ready) => {
      const channel = new WebSocket(address.replace('http', 'ws') + place);
      channel.onopen = () => ready('open');
      channel.onerror = () => ready(null);
    });
  }
  await Promise.all(done.map(async (place) => {
    const json = {'Content-Type': 'application/json'};
    const post = {method: 'POST', credentials: 'include', body};
    await ask('post ' + place, place, {...post, headers: json});
    await ask('post with a header ' + place, place, {...post, headers: {...json, 'X-Requested-With': 'fetch'}});
    await ask('post without cors ' + place, place, {...post, mode: 'no-cors'});
    await ask('post a file ' + place, place, {...post, mode: 'no-cors', body: upload()});
    await wait('beacon ' + place, (ready) => { navigator.sendBeacon(address + place, body); ready(null); });
    // As JSON: the field's name is all of it but the end, which becomes the value of a last key.
    const forms = [form('form as text ' + place, place, 'text/plain', {[body.slice(0, -1) + ',"x":"']: '"}'}),
    form('form ' + place, place, 'application/x-www-form-urlencoded', {data: body}),
    form('form with a file ' + place, place, 'multipart/form-data', {files: file()})];
    await Promise.all(forms);
  }));
  for (const way of ['DELETE', 'PUT', 'PATCH', 'OPTIONS']) {
    await ask(way, 'config', {method: way, credentials: 'include'});
  }
  return {got, config: typeof window.gradio_config};
}"""


@pytest.fixture
def inside(browser: Browser, served) -> Iterator[BrowserContext]:
    """A browser that has come in with the address that the app opens."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/darkroom/picture?*", lambda route: route.abort())  # its own pictures are not what is watched
    page.goto(entrance(served.address, key_of(served.context.home)))
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    yield context
    context.close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_another_sites_page_reads_nothing_and_changes_nothing(served, inside, home: Path, name, monkeypatch):
    body = json.dumps({"fn_index": number_of(served, "create"), "data": NEW, "session_hash": "x"})
    inside.pages[0].wait_for_load_state("networkidle")
    inside.pages[0].close()
    before, asked, passed = whole(home), heard_by(monkeypatch, Told), heard_by(monkeypatch, Ways)
    with another_site() as port:
        page = inside.new_page()
        page.goto(f"http://{name}:{port}/")
        for window in (served.address, served.address.replace("127.0.0.1", "localhost")):
            values = {"window": window, "places": PLACES, "events": EVENTS, "done": DONE, "body": body}
            found = page.evaluate(ATTACK, values)
            assert {way: read for way, read in found["got"].items() if read is not None} == {}
            assert found["config"] == "undefined"
    unheard = [place for place in DONE if asked.count(("POST", f"/{place}")) < 2 * 6]
    assert len(asked) > 150 and not unheard
    assert passed == [] and whole(home) == before and not uploaded(home)
    assert predict(served, "create", NEW)[0] == 200  # it was the page that was refused, not what it asked for
    assert "Stolen" in [one.name for one in projects.list_projects(served.context.home)]


def test_another_sites_link_and_popup_show_the_closed_door(served, inside, home: Path):
    before = whole(home)
    with another_site() as port:
        for name in ("localhost", "127.0.0.1"):
            page = inside.new_page()
            page.goto(f"http://{name}:{port}/")
            with page.expect_popup() as opened:
                page.evaluate("(address) => { window.other = window.open(address) }", f"{served.address}?show=train")
            expect(opened.value.get_by_text("This window opens with the address")).to_be_visible()
            page.evaluate("(address) => { window.location = address }", f"{served.address}?key=wrong")
            expect(page.get_by_text("This window opens with the address")).to_be_visible()
    assert whole(home) == before


def test_no_page_can_hold_the_window_in_a_frame(served, inside):
    """Not even one of its own site, to which the gate says yes."""
    page = inside.pages[0]
    page.evaluate("document.body.append(Object.assign(document.createElement('iframe'), {src: '/', name: 'held'}))")
    expect(page.frame_locator("[name=held]").get_by_role("tab")).to_have_count(0)
    page.wait_for_function("document.querySelector('[name=held]').contentDocument === null")
