"""A job's processes: ended together, however the poller, the guard or the job dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.waiting import alive, eventually

from pidml.alicetraint.jobs import JOB_DIR_VARIABLE
from pidml.poller.process import JobProcess, end_leftovers

#: Starts helpers of all kinds, says who they are, and goes on for ever.
FAMILY = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
same = subprocess.Popen(helper)
own = subprocess.Popen(helper, start_new_session=True)
pid = os.fork()
if pid == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1] + ".daemon", "w") as out:
            out.write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.waitpid(pid, 0)
while not os.path.exists(sys.argv[1] + ".daemon") or not open(sys.argv[1] + ".daemon").read():
    time.sleep(0.01)
with open(sys.argv[1] + ".tmp", "w") as out:
    out.write(f"{os.getpid()} {same.pid} {own.pid} {open(sys.argv[1] + '.daemon').read()}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
if "leave" in sys.argv:
    sys.exit(7)
time.sleep(600)
"""


def start(folder: Path, *arguments: str) -> JobProcess:
    env = {**os.environ, JOB_DIR_VARIABLE: str(folder)}
    command = [sys.executable, "-c", FAMILY, str(folder / "family"), *arguments]
    return JobProcess(command, env=env, cwd=folder, log_file=folder / "law.log")


def family(folder: Path) -> list[int]:
    eventually((folder / "family").exists, 20)
    return [int(pid) for pid in (folder / "family").read_text().split()]


@pytest.mark.parametrize(
    ("code", "expected"), [("import sys; sys.exit(40)", 40), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_is_the_job_s(tmp_path, code, expected):
    process = JobProcess([sys.executable, "-c", code], env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
    assert process.finish() == expected
    assert not process.guard_killed


def test_a_program_that_does_not_exist_says_so_in_the_log(tmp_path):
    process = JobProcess(["/no/such/program"], env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
    assert process.finish() == 127
    assert "cannot start /no/such/program" in (tmp_path / "log").read_text()


def test_output_is_appended_and_input_is_empty(tmp_path):
    for _ in range(2):
        code = "import sys; print(repr(sys.stdin.read())); print('err', file=sys.stderr)"
        JobProcess([sys.executable, "-c", code], env=os.environ, cwd=tmp_path, log_file=tmp_path / "log").finish()
    assert (tmp_path / "log").read_text() == "''\nerr\n" * 2


def test_what_a_job_leaves_behind_is_ended_with_it(tmp_path):
    process = start(tmp_path, "leave")
    assert process.finish() == 7
    assert [pid for pid in family(tmp_path) if alive(pid)] == []


def test_a_stubborn_job_and_its_helpers_are_ended_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr("pidml.poller.process.TERM_SECONDS", 0.3)
    process = start(tmp_path, "stubborn")
    pids = family(tmp_path)
    begin = time.monotonic()
    process.end()
    assert process.finish() == 128 + signal.SIGKILL
    assert 0.25 < time.monotonic() - begin < 5
    assert [pid for pid in pids if alive(pid)] == []


def test_a_killed_guard_takes_the_job_along_and_the_rest_is_found(tmp_path):
    process = start(tmp_path)
    pids = family(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    assert process.guard_killed
    end_leftovers(tmp_path)
    assert [pid for pid in pids if alive(pid)] == []


POLLER = """
import os, sys, time
from pathlib import Path
sys.path[:0] = {paths}
from test_poller_process import start
process = start(Path(sys.argv[1]), *sys.argv[2:])
print(process.pid, flush=True)
time.sleep(600)
"""


def start_and_kill(folder: Path, with_guard: bool) -> tuple[int, list[int]]:
    here = Path(__file__).parent
    script = POLLER.replace("{paths}", repr([str(here), str(here.parent)]))
    poller = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    with poller:
        guard = int(poller.stdout.readline())
        pids = family(folder)
        if with_guard:
            os.kill(guard, signal.SIGSTOP)  # so that it cannot act before both are dead
        poller.kill()
    if with_guard:
        os.kill(guard, signal.SIGKILL)
    return guard, pids


def test_a_poller_killed_outright_takes_all_of_the_job_along(tmp_path):
    guard, pids = start_and_kill(tmp_path, with_guard=False)
    eventually(lambda: not any(alive(pid) for pid in [guard, *pids]))


def test_poller_and_guard_killed_together_leave_nothing_to_the_next_life(tmp_path):
    guard, pids = start_and_kill(tmp_path, with_guard=True)
    assert end_leftovers(tmp_path) >= 3
    assert [pid for pid in [guard, *pids] if alive(pid)] == []
    assert end_leftovers(tmp_path) == 0


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except ProcessLookupError:
        return b""


def test_a_process_about_to_end_is_waited_for(tmp_path):
    """While it gives back its memory, it has no environment to be known by, but still holds its locks."""
    code = "data = b'x' * 500_000_000; print(flush=True); input()"
    environment = {**os.environ, JOB_DIR_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
        eventually(lambda: not environment_of(process.pid))
        end_leftovers(tmp_path)
        assert not alive(process.pid)


def test_processes_of_other_jobs_are_left_alone(tmp_path):
    (tmp_path / "17").mkdir()
    (tmp_path / "1").mkdir()
    process = start(tmp_path / "17")
    pids = family(tmp_path / "17")
    assert end_leftovers(tmp_path / "1") == 0
    assert all(alive(pid) for pid in pids)
    process.end()
    process.finish()
