"""The machine protocol over real HTTP, against the real server process."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from support.server_process import running_server

from pidml.server.aod import aod_file
from pidml.server.protocol import FileType, TaskStatus, parse_file_type

LFN = "/alice/sim/2026/LHC26sandbox/0/560001/AOD/001/AO2D.root"
_PART = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff-+2AA-\r\n--b--\r\n'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def machine(server):
    return server.store.register_machine("machine under test")


@pytest.fixture
def task(server, machine):
    """A task assigned to the machine; whatever was queued before is drained first."""
    server.store.queue_task("task", [aod_file(LFN, 5)], {"bs": 512})
    while (answer := server.fetch(*machine)).status_code == 200:
        last = answer.json()
    return last["ID"]


def test_a_task_is_told_exactly_as_queued(server, machine):
    files = [aod_file(LFN, 3143213210), {"Path": "/alice/data/2023/LHC23f/535084/0010/AO2D.root"}]
    configuration = {"bs": 512, "dropout": 0.1, "undersample": False}
    task_id = server.store.queue_task("physics", files, configuration, is_one=True, subsample_event_count=7)
    answer = server.fetch(*machine)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "ID": task_id,
        "AODFiles": [
            {
                "Name": "AO2D.root",
                "Path": LFN,
                "Size": 3143213210,
                "LHCPeriod": "LHC26sandbox",
                "RunNumber": 560001,
                "AODNumber": 1,
            },
            {"Path": "/alice/data/2023/LHC23f/535084/0010/AO2D.root"},
        ],
        "Configuration": configuration,
        "IsONe": True,
        "IsData": False,
        "SubsampleEventCount": 7,
    }
    assert server.store.task(task_id).status is TaskStatus.TRAINING
    assert server.store.task(task_id).machine_id == machine.id


def test_newer_fields_can_be_left_out(server, machine):
    server.store.queue_task("old", [{"Path": LFN}], {}, is_one=None, is_data=None, subsample_event_count=None)
    assert set(server.fetch(*machine).json()) == {"ID", "AODFiles", "Configuration"}


def test_tasks_come_oldest_first_and_then_404(server, machine):
    queued = [server.store.queue_task(f"task {n}", [{"Path": LFN}], {}) for n in range(3)]
    assert [server.fetch(*machine).json()["ID"] for _ in queued] == queued
    empty = server.fetch(*machine)
    assert (empty.status_code, empty.text) == (404, "no training task is queued")


@pytest.mark.parametrize("number", ["abc", "-1", "1.5", "9" * 19, "9" * 5000, "٣", "%00", "0x1", " 1"])
def test_a_machine_id_that_is_no_number_is_400(server, machine, number):
    assert server.fetch(number, machine.secret).status_code == 400


@pytest.mark.parametrize("secret", ["", "wrong", "x" * 10_000])
def test_a_wrong_key_is_401_and_assigns_nothing(server, machine, secret):
    task_id = server.store.queue_task("guarded", [{"Path": LFN}], {})
    assert server.fetch(machine.id, secret).status_code == 401
    assert server.fetch(machine.id + 1000, machine.secret).status_code == 401
    assert server.store.task(task_id).status is TaskStatus.QUEUED
    assert server.fetch(*machine).json()["ID"] == task_id


def test_head_assigns_nothing(server, machine):
    task_id = server.store.queue_task("guarded", [{"Path": LFN}], {})
    url = f"{server.url}/training-machines/{machine.id}/training-task"
    assert requests.head(url, headers={"Secret-Id": machine.secret}, timeout=30).status_code == 405
    assert server.fetch(*machine).json()["ID"] == task_id


def test_statuses_of_a_machine_are_kept_with_their_history(server, machine, task):
    for status in (3, 3, 4):
        answer = server.report(task, machine.secret, status)
        assert (answer.status_code, answer.content) == (200, b"")
    assert server.store.task(task).status is TaskStatus.COMPLETED
    assert [(change.status.name, change.source) for change in server.store.history(task)] == [
        ("QUEUED", "program"),
        ("TRAINING", "server"),
        ("BENCHMARKING", "machine"),
        ("COMPLETED", "machine"),
    ]


@pytest.mark.parametrize("status", [1, 5, 6, -1, 10**30, True, "3", 3.0, None, [3], {}])
def test_a_status_no_machine_may_set_is_422(server, machine, task, status):
    answer = server.report(task, machine.secret, status)
    assert answer.status_code == 422
    assert "0 (Failed), 2 (Training), 3 (Benchmarking), 4 (Completed)" in answer.text
    assert server.store.task(task).status is TaskStatus.TRAINING


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[3]", "application/json", 422),
        (b'{"Status": 3', "application/json", 422),
        (b"\xff\xfe\x00", "application/json", 422),
        (b'{"Status": ' + b"9" * 10_000 + b"}", "application/json", 422),
        (b'{"Status": NaN}', "application/json", 422),
        (b"[" * 10_000 + b"]" * 10_000, "application/json", 422),
        (b'{"Status": ' * 5_000 + b"1" + b"}" * 5_000, "application/json", 422),
        (b'{"Status": 3}', "text/html", 422),
        (b"Status=3", "application/x-www-form-urlencoded", 422),
        (b'{"Status": 3, "x": "' + b"a" * 10_000_000 + b'"}', "application/json", 413),
    ],
)
def test_a_hostile_status_body_is_refused(server, machine, task, body, content_type, expected):
    answer = requests.post(
        f"{server.url}/training-tasks/{task}/status",
        data=body,
        headers={"Secret-Id": machine.secret, "Content-Type": content_type},
        timeout=60,
    )
    assert answer.status_code == expected
    assert answer.text
    assert server.store.task(task).status is TaskStatus.TRAINING


def test_a_machine_touches_only_its_own_tasks(server, machine, task):
    other = server.store.register_machine("another machine")
    assert server.report(task, other.secret, 3).status_code == 401
    assert server.upload(task, other.secret, "a.log", b"x").status_code == 401
    unassigned = server.store.queue_task("waiting", [{"Path": LFN}], {})
    assert server.report(unassigned, machine.secret, 3).status_code == 401
    assert server.report(10**9, machine.secret, 3).status_code == 401
    assert server.report("abc", machine.secret, 3).status_code == 400
    assert server.store.results(task) == []


def test_uploads_are_kept_byte_by_byte(server, machine, task):
    content = bytes(range(256)) * 20_000  # larger than what is held in memory
    answer = server.upload(task, machine.secret, "pion.onnx", content, "2")
    assert answer.status_code == 201
    (result,) = server.store.results(task)
    assert answer.json() == result.as_protocol()
    assert (result.type, result.file_name, result.size) == (FileType.ONNX, "pion.onnx", len(content))
    assert server.store.result_path(result).read_bytes() == content


def test_without_a_key_the_same_upload_twice_makes_two_results(server, machine, task):
    for _ in range(2):
        assert server.upload(task, machine.secret, "train.log", b"same").status_code == 201
    assert len(server.store.results(task)) == 2


def test_the_same_idempotency_key_makes_one_result(server, machine, task):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.upload(task, machine.secret, "a.log", b"x", key="k1"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["ID"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len(server.store.results(task)) == 1
    stored = [path.name for path in server.store.file_dir.glob("*/*")]
    assert server.store.results(task)[0].stored_name in stored


def test_an_idempotency_key_belongs_to_one_content_and_one_task(server, machine, task):
    assert server.upload(task, machine.secret, "a.log", b"x", key="k2").status_code == 201
    assert server.upload(task, machine.secret, "a.log", b"y", key="k2").status_code == 422
    other = server.store.queue_task("other", [{"Path": LFN}], {})
    assert server.fetch(*machine).json()["ID"] == other
    assert server.upload(other, machine.secret, "a.log", b"y", key="k2").status_code == 201
    assert server.upload(other, machine.secret, "a.log", b"y", key="k" * 300).status_code == 422
    assert len(server.store.results(task)) == len(server.store.results(other)) == 1


@pytest.mark.parametrize("file_type", ["", "9", "3", "10", "-1", "+1", "1_0", " 1", "0x1", "²", "1" * 10_000])
def test_a_file_type_is_read_in_base_9(server, machine, task, file_type):
    assert parse_file_type(file_type) is None
    assert server.upload(task, machine.secret, "a.log", b"x", file_type).status_code == 422
    assert server.store.results(task) == []


@pytest.mark.parametrize(
    "file_name",
    ["../../etc/passwd", "/etc/passwd", "a\\b", "..", "a\x00b", "a\nb", "a\x1b[2Jb", "\u202egnp.log", "n" * 300],
)
def test_hostile_file_names_are_refused(server, machine, task, file_name):
    boundary = "boundary"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n\r\nx\r\n'
        + "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in {"name": "n", "description": "d", "file-type": "0"}.items()
        )
        + f"--{boundary}--\r\n"
    )
    before = sorted(server.data_dir.rglob("*"))
    answer = requests.post(
        f"{server.url}/training-tasks/{task}/training-task-results",
        data=body.encode(),
        headers={"Secret-Id": machine.secret, "Content-Type": f"multipart/form-data; boundary={boundary}"},
        timeout=60,
    )
    assert answer.status_code == 422
    assert sorted(server.data_dir.rglob("*")) == before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": ""}, 422),
        ({"name": None}, 422),
        ({"name": "a\x00b"}, 422),
        ({"name": "a\nb"}, 422),
        ({"name": "n" * 256}, 422),
        ({"name": "n" * 10_000_000}, 422),
        ({"description": "d" * 10_000}, 422),
        ({"description": "\x00"}, 422),
        ({"description": None}, 422),
        ({"file-type": None}, 422),
    ],
)
def test_hostile_fields_are_refused(server, machine, task, fields, expected):
    data = {"name": "n", "description": "d", "file-type": "0"} | fields
    answer = requests.post(
        f"{server.url}/training-tasks/{task}/training-task-results",
        files={"file": ("a.log", b"x")},
        data={key: value for key, value in data.items() if value is not None},
        headers={"Secret-Id": machine.secret},
        timeout=60,
    )
    assert answer.status_code == expected
    assert answer.text
    assert server.store.results(task) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"x", "application/octet-stream"),
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary="),
        (b"garbage", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\n" + b"X" * 10_000_000, "multipart/form-data; boundary=b"),
        (b"--b\r\nX: " + b"y" * 10_000_000 + b"\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=" + "b" * 5000),
        (b"x", "multipart/form-data; boundary=b; charset=\x00"),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (_PART, "multipart/form-data; boundary=b; charset=punycode"),
        (_PART, "multipart/form-data; boundary=b; charset=undefined"),
        (_PART, "multipart/form-data; boundary=b; charset=rot13"),
        (_PART, "multipart/form-data; boundary=b; charset=utf-7"),
        (b"", ""),
    ],
)
def test_a_body_that_is_no_upload_is_422(server, machine, task, body, content_type):
    session = requests.Session()
    request = requests.Request("POST", f"{server.url}/training-tasks/{task}/training-task-results", data=body)
    prepared = session.prepare_request(request)
    prepared.headers.update({"Secret-Id": machine.secret, "Content-Type": content_type.replace("\x00", "nul")})
    with session:
        answer = session.send(prepared, timeout=60)
    assert answer.status_code == 422
    assert answer.text
    assert server.store.results(task) == []


def test_the_key_is_kept_as_argon2id_only(server, machine):
    database = b"".join(path.read_bytes() for path in server.data_dir.glob("server.sqlite*"))
    assert b"$argon2id$" in database
    assert machine.secret.encode() not in database
