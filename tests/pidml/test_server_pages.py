"""The pages over real HTTP: forms, escaping, headers, protection against other sites, and the login."""

import html
import http.client
import re
from contextlib import closing

import pytest
import requests
from support.server_process import running_server

from pidml.errors import ConfigError, SpecError
from pidml.server.app import create_app
from pidml.server.protocol import TaskStatus
from pidml.server.settings import ServerSettings
from pidml.spec.deployed_fields import DEPLOYED_FIELDS

LFN = "/alice/sim/2026/LHC26sandbox/0/560001/AOD/001/AO2D.root"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
HOSTILE = "<script>alert('x')</script>\"&"
DEFAULTS = {f"configuration-{entry.key}": str(entry.default) for entry in DEPLOYED_FIELDS if entry.type != "bool"}
TOKEN = "a-long-enough-admin-token"


class Browser:
    """Follows forms as a browser does: keeps the cookie and sends the page's hidden token."""

    def __init__(self, url):
        self.url = url
        self.session = requests.Session()

    def get(self, path, **options):
        return self.session.get(self.url + path, timeout=30, **options)

    def send(self, page, path, fields, **headers):
        token = re.search(r'name="form-token" value="([0-9a-f]+)"', self.get(page).text)[1]
        pairs = [("form-token", token), *(fields.items() if isinstance(fields, dict) else fields)]
        return self.session.post(self.url + path, data=pairs, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    path = root / "grid" / LFN.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(12345))
    with running_server(root / "server", grid_dir=root / "grid") as running:
        yield running


@pytest.fixture
def browser(server):
    client = Browser(server.url)
    with client.session:
        yield client


@pytest.fixture(scope="module")
def machine(server):
    return server.store.register_machine(HOSTILE)


def _claimed(server, machine, name="task"):
    task = server.store.queue_task(name, [{"Path": LFN}], {"bs": 512})
    while server.store.assign_next(machine.id).id != task:
        pass
    return task


def test_the_form_has_a_field_for_every_definition(browser):
    page = browser.get("/tasks/new").text
    for entry in DEPLOYED_FIELDS:
        tag = re.search(rf'<input[^>]*name="configuration-{entry.key}"[^>]*>', page)[0]
        assert html.escape(entry.description) in page
        if entry.type == "bool":
            assert 'type="checkbox"' in tag
        else:
            assert (f'min="{entry.minimum}"' in tag, f'max="{entry.maximum}"' in tag) == (True, True)
            assert f'value="{entry.default}"' in tag


def test_a_queued_form_becomes_the_deployed_configuration(server, browser, machine):
    fields = {**DEFAULTS, "name": "from the page", "grid-file": LFN, "files": "alien:///alice/x.root\n", "is-one": "on"}
    answer = browser.send("/tasks/new", "/tasks", fields | {"configuration-undersample": "on", "subsample": "10"})
    assert (answer.status_code, "from the page" in answer.text) == (200, True)
    task = server.store.tasks(limit=1)[0]
    assert task.status is TaskStatus.QUEUED
    assert task.configuration == {entry.key: entry.default for entry in DEPLOYED_FIELDS} | {"undersample": True}
    assert {key: type(value) for key, value in task.configuration.items()} == {
        entry.key: {"bool": bool, "uint": int, "float64": float}[entry.type] for entry in DEPLOYED_FIELDS
    }
    assert (task.document["IsONe"], task.document["IsData"], task.document["SubsampleEventCount"]) == (True, False, 10)
    assert task.files == [
        {
            "Name": "AO2D.root",
            "Path": LFN,
            "Size": 12345,
            "LHCPeriod": "LHC26sandbox",
            "RunNumber": 560001,
            "AODNumber": 1,
        },
        {"Name": "x.root", "Path": "alien:///alice/x.root"},
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "empty, too long"),
        ({"name": "a\x00b"}, "not printable"),
        ({"name": "n" * 300}, "too long"),
        ({"files": ""}, "AO2D files"),
        ({"files": "/alice/../../etc/passwd"}, "parent directory"),
        ({"files": "relative/AO2D.root"}, "neither a path"),
        ({"files": "javascript://x"}, "neither a path"),
        ({"files": "/a\x00b"}, "not printable"),
        ({"files": f"{LFN}\n{LFN}"}, "twice"),
        ({"files": "/" + "a" * 2000}, "longer than 1024"),
        ({"subsample": "-1"}, "whole number"),
        ({"configuration-bs": "0"}, "from 1 to 1024"),
        ({"configuration-bs": "1025"}, "from 1 to 1024"),
        ({"configuration-bs": "1e2"}, "from 1 to 1024"),
        ({"configuration-bs": "٣"}, "from 1 to 1024"),
        ({"configuration-dropout": "1"}, "from 0 to 0.99"),  # would drop everything
        ({"configuration-dropout": "nan"}, "from 0 to 0.99"),
        ({"configuration-dropout": "1" * 400}, "from 0 to 0.99"),
        ({"configuration-dropout": HOSTILE}, "from 0 to 0.99"),
        ({"configuration-d_model": "33"}, "multiple of the number of heads"),
    ],
)
def test_a_wrong_form_queues_nothing_and_says_why(server, browser, fields, reason):
    before = len(server.store.tasks())
    answer = browser.send("/tasks/new", "/tasks", {**DEFAULTS, "name": "n", "files": LFN, "subsample": "0", **fields})
    assert answer.status_code == 422
    assert reason in html.unescape(answer.text)
    assert HOSTILE not in answer.text
    assert len(server.store.tasks()) == before


def test_hostile_names_are_escaped_everywhere(server, browser, machine):
    task = server.store.queue_task(HOSTILE, [{"Path": HOSTILE, "Size": -1}], {HOSTILE: HOSTILE, "x": {HOSTILE: 1}})
    while server.store.assign_next(machine.id).id != task:
        pass
    assert server.upload(task, machine.secret, "<b>&.png", PNG, "1").status_code == 201
    assert server.upload(task, machine.secret, "<i>.log", b"<script>", "0").status_code == 201
    for path in ("/", f"/tasks/{task}", "/machines"):
        page = browser.get(path)
        assert page.status_code == 200
        assert HOSTILE not in page.text
        assert html.escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page.text
    page = browser.get(f"/tasks/{task}").text
    assert "&lt;b&gt;&amp;.png" in page
    assert "&lt;i&gt;.log" in page
    assert "<b>&.png" not in page
    assert "<i>" not in page


def test_results_are_sent_safely(server, browser, machine):
    task = _claimed(server, machine)
    uploads = {
        "plot.png": (PNG, "1"),
        "fake.png": (b"<html>", "1"),
        "page.html": (b"<script>", "0"),
        "n.onnx": (b"o", "2"),
    }
    for name, (content, file_type) in uploads.items():
        assert server.upload(task, machine.secret, name, content, file_type).status_code == 201
    sent = {r.file_name: browser.get(f"/results/{r.id}/file") for r in server.store.results(task)}
    assert {name: answer.content for name, answer in sent.items()} == {name: c for name, (c, _) in uploads.items()}
    assert sent["plot.png"].headers["Content-Type"] == "image/png"
    for name in ("fake.png", "page.html", "n.onnx"):
        assert sent[name].headers["Content-Type"] == "application/octet-stream"
        assert sent[name].headers["Content-Disposition"] == f'attachment; filename="{name}"'
    for answer in sent.values():
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    page_id = next(r.id for r in server.store.results(task) if r.file_name == "page.html")
    assert browser.get(f"/results/{page_id}/file?view=text").headers["Content-Type"] == "text/plain; charset=utf-8"
    page = browser.get(f"/tasks/{task}").text
    assert page.count('<img src="/results/') == 1


def test_shared_file_names_are_visible(server, browser, machine):
    task = _claimed(server, machine)
    for content in (b"1", b"2"):
        server.upload(task, machine.secret, "train.log", content)
    page = browser.get(f"/tasks/{task}").text
    assert "share a file name" in page
    assert page.count("name used 2×") == 2


def test_the_task_page_refreshes_until_the_end(server, browser, machine):
    task = _claimed(server, machine)
    assert 'http-equiv="refresh"' in browser.get(f"/tasks/{task}").text
    server.report(task, machine.secret, 4)
    assert 'http-equiv="refresh"' not in browser.get(f"/tasks/{task}").text


def test_withdrawing_and_copying(server, browser, machine):
    task = server.store.queue_task("unwanted", [{"Path": LFN}], {"bs": 7})
    assert browser.send(f"/tasks/{task}", f"/tasks/{task}/withdraw", {}).status_code == 200
    assert server.store.task(task).status is TaskStatus.FAILED
    assert browser.send(f"/tasks/{task}", f"/tasks/{task}/withdraw", {}).status_code == 409
    assert browser.send(f"/tasks/{task}", f"/tasks/{task}/copy", {}).status_code == 200
    copy = server.store.tasks(limit=1)[0]
    assert (copy.status, copy.document) == (TaskStatus.QUEUED, server.store.task(task).document)


def test_a_registered_machine_works_and_its_key_is_shown_once(server, browser):
    answer = browser.send("/machines", "/machines", {"name": "new node"})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    settings = dict(
        re.findall(r"(MACHINE_ID|MACHINE_SECRET_KEY|ALICETRAINT_BASE_URL)=(\S+?)(?:\n|</pre>)", answer.text)
    )
    assert settings["ALICETRAINT_BASE_URL"] == server.url
    assert server.fetch(settings["MACHINE_ID"], settings["MACHINE_SECRET_KEY"]).status_code in (200, 404)
    assert settings["MACHINE_SECRET_KEY"] not in browser.get("/machines").text
    assert browser.send("/machines", "/machines", {"name": " "}).status_code == 422


def test_forms_of_other_sites_are_refused(server, browser):
    before = len(server.store.machines())
    form = {"name": "intruder"}
    assert requests.post(f"{server.url}/machines", data=form, timeout=30).status_code == 403
    assert browser.send("/machines", "/machines", form, Origin="http://evil.example").status_code == 403
    assert browser.send("/machines", "/machines", form, Origin="null").status_code == 403
    assert (
        browser.session.post(f"{server.url}/machines", data=form | {"form-token": "0" * 64}, timeout=30).status_code
        == 403
    )
    stranger = Browser(server.url)
    token = re.search(r'name="form-token" value="([0-9a-f]+)"', stranger.get("/machines").text)[1]
    stranger.session.close()
    assert (
        browser.session.post(f"{server.url}/machines", data=form | {"form-token": token}, timeout=30).status_code == 403
    )
    assert len(server.store.machines()) == before
    assert browser.send("/machines", "/machines", form, Origin=server.url).status_code == 201


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"name": "x"}', "application/json", 415),
        (b"", "", 415),
        (b"name=%ff%fe", "application/x-www-form-urlencoded", 400),
        (b"name=\xff", "application/x-www-form-urlencoded", 400),
        (b"a=b&" * 5000, "application/x-www-form-urlencoded", 400),
        (b"name=" + b"n" * 10_000_000, "application/x-www-form-urlencoded", 413),
    ],
)
def test_hostile_forms_are_refused(server, body, content_type, status):
    for path in ("/machines", "/tasks", "/tasks/1/copy"):
        answer = requests.post(server.url + path, data=body, headers={"Content-Type": content_type}, timeout=30)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "path",
    (
        "/tasks/0 /tasks/-1 /tasks/abc /tasks/%00 /tasks/1%0a /results/7777/file /results/x/file /results/-1/file "
        f"/static/../app.py /static/%2e%2e/app.py /static/ /nowhere /tasks/{'9' * 6000}"
    ).split(),
)
def test_unknown_paths_are_404(browser, path):
    assert browser.get(path).status_code == 404


@pytest.mark.parametrize("page", ["0", "-1", "abc", "²", "9" * 5000, "3"])
def test_a_strange_page_number_is_harmless(browser, page):
    assert browser.get("/", params={"page": page}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "[", "[::1", "", "a b", "localhost@evil.example", "\xff"]
)
def test_pages_answer_under_a_local_name_only(server, host):
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)) as connection:
        connection.putrequest("GET", "/", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        assert 400 <= answer.status < 500
        assert b"Training tasks" not in answer.read()


def test_every_page_has_the_security_headers(server, browser):
    for path in ("/", "/machines", "/tasks/new", "/nowhere", "/static/style.css"):
        answer = browser.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "<script" not in answer.text
        assert not re.search(r'(src|href)="https?:', answer.text)


def test_with_a_token_pages_need_a_login(tmp_path):
    options = ("--host", "0.0.0.0")
    with running_server(tmp_path, options=options, PIDML_SERVER_TOKEN=TOKEN) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        browser = Browser(url)
        for path in ("/", "/machines", "/tasks/new", "/results/1/file"):
            assert browser.get(path, allow_redirects=False).headers["Location"] == "/login"
        assert browser.send("/login", "/machines", {"name": "x"}).url == f"{url}/login"
        assert browser.send("/login", "/login", {"token": "wrong"}).status_code == 401
        assert "Training tasks" not in browser.get("/").text
        assert "Training tasks" in browser.send("/login", "/login", {"token": TOKEN}).text
        assert browser.send("/machines", "/machines", {"name": "x"}).status_code == 201
        assert TOKEN not in str(browser.session.cookies)
        browser.send("/", "/logout", {})
        assert "Training tasks" not in browser.get("/").text
        browser.session.close()
        bearer = requests.get(f"{url}/", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert "Training tasks" in bearer.text
        machine = server.store.register_machine("m")
        server.url = url
        assert server.fetch(*machine).status_code == 404


@pytest.mark.parametrize(
    "settings",
    [{"host": "0.0.0.0"}, {"host": "::"}, {"port": 70000}, {"admin_token": "short"}, {"grid_dir": "nowhere"}],
)
def test_dangerous_settings_are_refused(tmp_path, settings):
    settings = {key: tmp_path / value if key == "grid_dir" else value for key, value in settings.items()}
    with pytest.raises(ConfigError):
        create_app(ServerSettings(data_dir=tmp_path / "data", **settings))


@pytest.mark.parametrize(
    ("name", "files", "configuration"),
    [
        ("", [{"Path": LFN}], {}),
        ("n", [], {}),
        ("n", [{"Path": "\ud800"}], {}),
        ("n", [{"Path": LFN}], {"x": float("nan")}),
        ("n", [{"Path": LFN}], {"x": object()}),
    ],
)
def test_a_task_that_cannot_be_sent_is_not_queued(server, name, files, configuration):
    before = len(server.store.tasks())
    with pytest.raises(SpecError):
        server.store.queue_task(name, files, configuration)
    assert len(server.store.tasks()) == before


def test_a_configuration_nested_too_deep_is_not_queued(server):
    for depth in (100, 10_000):
        nested = {}
        for _ in range(depth):
            nested = {"x": nested}
        with pytest.raises(SpecError):
            server.store.queue_task("deep", [{"Path": LFN}], nested)
