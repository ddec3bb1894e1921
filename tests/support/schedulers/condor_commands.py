"""Stand-ins for condor_submit, condor_q, condor_history, condor_rm, condor_status and condor_version."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import spool

_DOWN = "Error: Couldn't contact the condor_collector"
_STATUS = {"PENDING": 1, "RUNNING": 2, "CANCELLED": 3, "COMPLETED": 4, "FAILED": 4, "SUSPENDED": 7, "TRANSFERRING": 6}
_HOLDS = {
    "OUT_OF_MEMORY": (34, "Error from slot1@node1: Job has gone over cgroup memory limit"),
    "TIMEOUT": (47, "The job exceeded allowed execute duration"),
    "OVER_DISK": (21, "disk usage exceeded request_disk"),
    "HELD": (13, "Transfer input files failure at the execution point"),
}


def condor_submit(arguments: list[str]) -> None:
    """Take the jobs of a submit description; another executable starts another cluster."""
    spool.fail_if_down("ERROR: Can't find address of local schedd")
    values: dict[str, str] = {}
    lines = []
    for line in Path(arguments[-1]).read_text().splitlines():
        if line.strip() == "queue":
            if len(lines) == int(spool.setting("refuse_after", "-1")):
                sys.exit("ERROR: Failed to parse command file (line 17).")
            lines.append(_take(dict(values)))
        elif "=" in line:
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip()
    if spool.answer_lost():
        sys.exit("ERROR: Failed to commit job submission into the queue.")
    print("Submitting job(s).")
    for number in lines:
        print(f"1 job(s) submitted to cluster {number}.")


def _take(values: dict[str, str]) -> int:
    number = spool.next_id()
    environment = dict(pair.split("=", 1) for pair in values.get("environment", '""').strip('"').split())
    executable = Path(values["executable"]).absolute()
    inputs = [executable, *(Path(name) for name in values.get("transfer_input_files", "").split(",") if name)]
    spool.submit({
        "id": number, "kind": "condor", "name": values["+PidmlToken"].strip('"'),
        "command": [f"./{executable.name}", *values.get("arguments", "").split()],
        "inputs": [str(path) for path in inputs],
        "cwd": "", "log": values.get("output", "/dev/null"), "memory": float(values["request_memory"].split()[0]),
        "disk": float(values["request_disk"].split()[0]),
        "minutes": float(values.get("allowed_execute_duration", 1e9)) / 60, "cores": values["request_cpus"],
        "env": environment, "state": "PENDING", "code": 0, "signal": 0, "reason": "None", "starts": 0,
        "submitted": time.time(), "ended": 0.0, "values": values,
    })  # fmt: skip
    spool.kill_submitter_at(number)
    return number


def _ad(job: dict[str, Any]) -> dict[str, Any]:
    ad: dict[str, Any] = {"ClusterId": job["id"], "ProcId": 0, "PidmlToken": job["name"], "NumJobStarts": job["starts"]}
    if job["state"] in _HOLDS:
        code, reason = _HOLDS[job["state"]]
        return ad | {"JobStatus": 5, "HoldReasonCode": code, "HoldReason": reason}
    ad["JobStatus"] = _STATUS[job["state"]]
    if ad["JobStatus"] == 4:
        ad |= {"ExitBySignal": bool(job["signal"]), "LastRemoteHost": "slot1@node1"}
        ad |= {"ExitSignal": job["signal"]} if job["signal"] else {"ExitCode": job["code"]}
    if ad["JobStatus"] == 3:
        ad["RemoveReason"] = f"via condor_rm (by user {job.get('by', 'somebody')})"
    if ad["JobStatus"] == 2:
        ad["RemoteHost"] = "slot1@node1"
    return ad


def _show(arguments: list[str], history: bool) -> None:
    spool.fail_if_down(_DOWN)
    if "-totals" in arguments:
        print("Total for all users: 0 jobs")
        return
    if "-constraint" in arguments:
        text = arguments[arguments.index("-constraint") + 1]
        wanted = set(re.search(r'"(.*)"', text).group(1).split(","))  # type: ignore[union-attr]
        jobs = [job for job in spool.all_jobs() if job["name"] in wanted]
        if history and len(jobs) < len(wanted) and "-since" not in arguments and spool.setting("long_history"):
            sys.exit("all of a long history was read, which took hours")
    else:
        numbers = [word.split(".")[0] for word in arguments if re.fullmatch(r"\d+\.\d+", word)]
        jobs = [job for number in numbers if (job := spool.load(number))]
    gone = {"COMPLETED", "FAILED", "CANCELLED"}
    ads = [_ad(job) for job in spool.visible(jobs) if (job["state"] in gone) == history]
    if ads:
        names = arguments[arguments.index("-attributes") + 1].split(",")
        print(json.dumps([{key: value for key, value in ad.items() if key in names} for ad in ads]))


def condor_q(arguments: list[str]) -> None:
    """List jobs in the queue."""
    _show(arguments, history=False)


def condor_history(arguments: list[str]) -> None:
    """List jobs that left the queue."""
    _show(arguments, history=True)


def condor_rm(arguments: list[str]) -> None:
    """Ask for jobs to be removed."""
    spool.fail_if_down(_DOWN)
    for job in arguments:
        (spool.SPOOL / "cancel" / job.split(".")[0]).touch()


def condor_status(_: list[str]) -> None:
    """List the slots: cores, memory in MB, disk in kB, GPUs."""
    spool.fail_if_down(_DOWN)
    print(spool.setting("slots", "64 256000 1.0E+09 8"))


def condor_version(_: list[str]) -> None:
    """Print the version."""
    print("$CondorVersion: 23.9.6 2024-08-08 BuildID: stand-in $\n$CondorPlatform: X86_64-Linux $")


if __name__ == "__main__":
    globals()[Path(sys.argv[1]).name](sys.argv[2:])
