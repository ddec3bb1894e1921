"""The machine's key stays where it belongs: looked for in files, logs, process lists and uploads of a whole run."""

import json
import subprocess
import sys
from pathlib import Path

from support.machine import running_machine
from support.waiting import eventually

from pidml.alicetraint.jobs import job_directory
from pidml.server.protocol import TaskStatus


def command_lines() -> list[bytes]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return lines


def test_the_key_is_in_no_file_no_log_no_process_list_and_no_upload(tmp_path):
    with running_machine(tmp_path / "m") as machine:
        key = machine.settings.secret.reveal()
        [good] = machine.queue()
        [leaky] = machine.queue()
        log = tmp_path / "poller.log"
        # The second job prints its environment and fails: its log is uploaded.
        runner = tmp_path / "runner.py"
        runner.write_text(
            "import sys, logging\nfrom pidml.poller.logs import configure_logging\nfrom pidml.poller.loop import poll\n"
            "from pidml.settings import Settings\nfrom support.machine import fake_command\n"
            "configure_logging(level=logging.DEBUG)\n"
            "leak = 'import os, sys; print(dict(os.environ)); sys.exit(40)'\n"
            f"command = lambda job: fake_command(job) if job.task_id == {good} else [sys.executable, '-c', leak]\n"
            "logging.getLogger('test').error('a message with %s', Settings.load(dotenv=None).secret.reveal())\n"
            "poll(Settings.load(dotenv=None), drain=True, command=command)\n"
            "logging.getLogger('test').error('a message with %s', Settings.load(dotenv=None).secret.reveal())\n"
        )
        plan = json.dumps({"seconds": 0.5})
        with log.open("wb") as stream:
            poller = subprocess.Popen(
                [sys.executable, str(runner)], env=machine.environment(FAKE_JOB=plan), stdout=stream, stderr=stream
            )
        job = job_directory(machine.settings.store, good)
        eventually(job.progress_file.exists)
        assert [line for line in command_lines() if key.encode() in line] == []
        assert poller.wait(60) == 0
        assert (machine.status(good), machine.status(leaky)) == (TaskStatus.COMPLETED, TaskStatus.FAILED)

        text = log.read_text()
        assert "Starting new HTTP connection" in text, "urllib3's own messages were on"
        assert text.count(key) == 1, "only what was logged before the poller knew the key"
        kept = [path for path in machine.settings.store.rglob("*") if path.is_file()]
        holding = [path for path in kept if key.encode() in path.read_bytes()]
        assert holding == []
        uploaded = dict(machine.results(leaky))[f"failure_task{leaky}.log"]
        assert "'MACHINE_SECRET_KEY': '****'" in uploaded
