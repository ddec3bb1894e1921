"""The pages in a real browser: forms work under the page's own policies, images show, hostile names stay text."""

import io

import pytest
from PIL import Image
from support.chromium import PROGRAM, chromium
from support.server_process import running_server

from pidml.server.protocol import TaskStatus
from pidml.spec.deployed_fields import DEPLOYED_FIELDS

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")]

LFN = "/alice/sim/2026/LHC26sandbox/0/560001/AOD/001/AO2D.root"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
COLOUR = (3, 201, 87)


def _png(width=400, height=300):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), COLOUR).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    path = root / "grid" / LFN.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    with running_server(root / "server", grid_dir=root / "grid") as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def test_a_person_registers_a_machine_and_queues_a_task_that_the_machine_gets(server, browser):
    browser.open(f"{server.url}/machines")
    browser.act("document.querySelector('#name').value = 'node'; document.querySelector('main button').click()")
    lines = browser.evaluate("document.querySelector('#environment').textContent").splitlines()
    settings = dict(line.split("=", 1) for line in lines)

    browser.open(f"{server.url}/tasks/new")
    browser.act(
        "document.querySelector('#name').value = 'from a browser';"
        "document.querySelector('#grid-file option').selected = true;"
        "document.querySelector('main button').click()"
    )
    assert browser.evaluate("document.querySelector('h1').textContent").split() == ["from", "a", "browser", "Queued"]
    task = server.fetch(settings["MACHINE_ID"], settings["MACHINE_SECRET_KEY"]).json()
    assert (task["AODFiles"][0]["Path"], task["AODFiles"][0]["Size"]) == (LFN, 1000)
    assert task["Configuration"] == {entry.key: entry.default for entry in DEPLOYED_FIELDS}


def test_the_browser_itself_refuses_values_out_of_range(server, browser):
    browser.open(f"{server.url}/tasks/new")
    for entry in DEPLOYED_FIELDS:
        if entry.type != "bool":
            field = f"document.querySelector('#configuration-{entry.key}')"
            assert browser.evaluate(f"{field}.validity.valid") is True
            assert browser.evaluate(f"{field}.value = {entry.maximum + 1}; {field}.validity.rangeOverflow") is True
            assert browser.evaluate(f"{field}.value = -1; {field}.validity.rangeUnderflow") is True


def test_images_show_and_hostile_names_stay_text(server, browser):
    machine = server.store.register_machine(HOSTILE[:100])
    task = server.store.queue_task(HOSTILE, [{"Path": HOSTILE}], {HOSTILE: HOSTILE})
    while server.store.assign_next(machine.id).id != task:
        pass
    assert server.upload(task, machine.secret, "purity<b>.png", _png(), "1").status_code == 201
    server.report(task, machine.secret, int(TaskStatus.COMPLETED))
    for path in ("/", "/machines", f"/tasks/{task}"):
        browser.open(server.url + path)
        assert "taken" not in browser.evaluate("document.title").replace(HOSTILE, "")
        assert (
            browser.evaluate("document.querySelectorAll('main script, main img[src=x], main figure b b').length") == 0
        )
        assert browser.evaluate("document.querySelector('main').innerText.includes(\"document.title='taken'\")") is True
        assert browser.messages() == []
    assert browser.evaluate("document.querySelector('figure img').naturalWidth") == 400
    shown = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    drawn = sum(count for count, colour in shown.getcolors(shown.width * shown.height) if colour == COLOUR)
    assert drawn > 20_000


def test_an_uploaded_page_cannot_run_in_the_servers_name(server, browser):
    machine = server.store.register_machine("m")
    task = server.store.queue_task("t", [{"Path": LFN}], {})
    while server.store.assign_next(machine.id).id != task:
        pass
    content = b"<title>before</title><script>document.title='taken'</script>"
    assert server.upload(task, machine.secret, "report.html", content, "0").status_code == 201
    (result,) = server.store.results(task)
    browser.open(f"{server.url}/results/{result.id}/file?view=text")
    assert browser.evaluate("document.title") == ""
    assert browser.evaluate("document.body.innerText") == content.decode()
