"""Stand-ins for sbatch, squeue, sacct, scancel, scontrol and sinfo: the options, formats and messages that matter."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import spool

_DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return long options (``--a=b``, ``--a b`` for a few, flags) and other arguments."""
    found, rest = {}, []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            rest.append(word)
        elif "=" in word:
            key, _, value = word[2:].partition("=")
            found[key] = value
        elif word in ("--partition", "--format"):
            found[word[2:]] = next(words)
        else:
            found[word[2:]] = ""
    return found, rest


def partitions() -> dict[str, tuple[str, str, int]]:
    """Return name → (time limit, generic resources, memory of the largest node in MB)."""
    rows = (line.split("|") for line in spool.setting("partitions", "main*|infinite|(null)|64000").splitlines())
    return {name: (limit, gres, int((*memory, "64000")[0])) for name, limit, gres, *memory in rows}


def sbatch(arguments: list[str]) -> None:
    """Take a job."""
    spool.fail_if_down("sbatch: error: Batch job submission failed: Unable to contact slurm controller")
    given, rest = options(arguments)
    if "test-only" in given:
        _test_only(given)
        return
    (script,) = rest
    text = Path(script).read_text()
    asked, _ = options(re.findall(r"^#SBATCH (.+)$", text, re.MULTILINE))
    asked |= given
    _check_partition(asked)
    if float(asked["mem"].rstrip("M")) > float(spool.setting("largest_node", "inf")):
        sys.exit("sbatch: error: Batch job submission failed: Requested node configuration is not available")
    number = spool.next_id()
    exported = {key: os.environ[key] for key in asked.get("export", "").split(",") if key in os.environ}
    body = spool.SPOOL / "scripts" / f"{number}.sh"
    body.write_text(text)
    spool.submit({
        "id": number, "kind": "slurm", "name": asked.get("job-name", ""), "command": ["bash", str(body)],
        "cwd": asked.get("chdir", str(Path.cwd())), "log": asked["output"].replace("%j", str(number)),
        "memory": float(asked["mem"].rstrip("M")), "minutes": float(asked["time"]), "cores": asked["cpus-per-task"],
        "env": exported | {"SLURM_JOB_ID": str(number)}, "state": "PENDING", "code": 0, "signal": 0, "reason": "None",
        "submitted": time.time(), "ended": 0.0,
    })  # fmt: skip
    spool.kill_submitter_at(number)
    if spool.answer_lost():
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    print(f"Submitted batch job {number}")


def _check_partition(asked: dict[str, str]) -> None:
    names = [name.rstrip("*") for name in partitions()]
    if asked.get("partition", names[0]) not in names:
        sys.exit("sbatch: error: invalid partition specified: " + asked["partition"] + "\n"
                 "sbatch: error: Batch job submission failed: Invalid partition name specified")  # fmt: skip


def _test_only(asked: dict[str, str]) -> None:
    """Say whether such a job would be taken."""
    _check_partition(asked)
    if refused := spool.setting("refuse"):
        sys.exit(f"allocation failure: {refused}")
    print(f"sbatch: Job 1 to start at now using {asked['cpus-per-task']} processors", file=sys.stderr)


def _selected(given: dict[str, str]) -> list[dict]:
    if "jobs" in given:
        return spool.visible([job for number in given["jobs"].split(",") if (job := spool.load(number))])
    names = set(given["name"].split(","))
    return spool.visible([job for job in spool.all_jobs() if job["name"] in names])


def squeue(arguments: list[str]) -> None:
    """List jobs; ended ones only for a while."""
    spool.fail_if_down(_DOWN)
    given, _ = options(arguments)
    age = float(spool.setting("min_job_age", "300"))
    chosen = _selected(given)
    part = spool.setting("bad_name")
    if part and any(part in job["name"] for job in chosen) and spool.use_up("bad_answers"):
        sys.exit("slurm_load_jobs error: Socket timed out on send/recv operation")
    recent = [job for job in chosen if not job["ended"] or time.time() - job["ended"] < age]
    if not recent and "jobs" in given and "," not in given["jobs"]:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for job in recent:
        fields = {"A": job["id"], "T": job["state"], "r": job["reason"], "N": "node1", "j": job["name"]}
        print(re.sub(r"%(\w)", lambda match, fields=fields: str(fields[match.group(1)]), given["format"]))


def sacct(arguments: list[str]) -> None:
    """List jobs of the accounting."""
    spool.fail_if_down("sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection")
    if spool.setting("accounting") == "off":
        sys.exit("Slurm accounting storage is disabled")
    given, _ = options(arguments)
    for job in _selected(given):
        state = "CANCELLED by 0" if job["state"] == "CANCELLED" else job["state"]
        if (part := spool.setting("never_closed")) and part in job["name"]:
            state = "RUNNING"
        fields = {
            "JobIDRaw": job["id"], "State": state, "ExitCode": f"{job['code']}:{job['signal']}",
            "Reason": job["reason"], "NodeList": "node1", "JobName": job["name"],
        }  # fmt: skip
        print("|".join(str(fields[name]) for name in given["format"].split(",")))


def scancel(arguments: list[str]) -> None:
    """Ask for jobs to be ended."""
    spool.fail_if_down(_DOWN)
    for number in options(arguments)[1]:
        (spool.SPOOL / "cancel" / number).touch()


def scontrol(arguments: list[str]) -> None:
    """Show one job that the controller still knows."""
    spool.fail_if_down(_DOWN)
    assert arguments[:3] == ["--oneliner", "show", "job"], arguments
    job = spool.load(arguments[3])
    if job is None or (job["ended"] and time.time() - job["ended"] >= float(spool.setting("min_job_age", "300"))):
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(f"JobId={job['id']} JobName={job['name']} JobState={job['state']} Reason={job['reason']} "
          f"DerivedExitCode=0:0 ExitCode={job['code']}:{job['signal']} NodeList=node1")  # fmt: skip


def sinfo(_: list[str]) -> None:
    """List partitions."""
    spool.fail_if_down(_DOWN)
    for name, (limit, gres, memory) in partitions().items():
        print(f"{name}|{limit}|{gres}|{memory}")


if __name__ == "__main__":
    globals()[Path(sys.argv[1]).name](sys.argv[2:])
