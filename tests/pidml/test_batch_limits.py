"""What jobs ask for is compared with what a site grants before anything is submitted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pidml.batch import disks
from pidml.batch.disks import Quota, quota_of, room
from pidml.batch.limits import Request, within_limits
from pidml.batch.preflight import check_site
from pidml.batch.site import Site, read_profile
from pidml.batch.submission import htcondor_lines, slurm_lines
from pidml.errors import ConfigError, DiskFull
from pidml.spec.resources_section import StepResources

SINFO = "main*|1-00:00:00|(null)\nlong|infinite|gpu:4\nshort|30:00|(null)"
POOL = "8 16000 1.0E+08 undefined\n64 512000 4.0E+07 4"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write stand-ins of commands that print a text (and fail with a code)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, text: str, code: int = 0) -> Path:
        said = tmp_path / f"{name}.called"
        script = f"#!/bin/sh\necho \"$@\" >>{said}\ncat <<'END'\n{text}\nEND\nexit {code}\n"
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
        return said

    return write


@pytest.mark.parametrize(
    ("site", "hours", "branches", "text", "hint"),
    [
        (
            Site("site", "slurm", max_time=24),
            24,
            10,
            r"240 h \(10 branches, 24 h each\), the profile site \(max_time\)",
            "--tasks-per-job 1 or less",
        ),
        (Site(workflow="slurm"), 4, 10, r"40 h \(10 branches, 4 h each\), partition main allows 24 h", "job 6 or less"),
        (Site(workflow="slurm"), 30, 1, "30 h, partition main allows 24 h", "lower `time` under resources"),
        (Site(workflow="slurm", partition="short"), 1, 1, "partition short allows 0.5 h", "another partition"),
        (Site(workflow="slurm", partition="nowhere"), 1, 1, "no partition 'nowhere'", "there are: main, long, short"),
        (read_profile("lxplus"), 100, 2, r"200 h .*\(max_time\) allows 168 h", "--tasks-per-job 1 or less"),
        (
            Site("cern", "htcondor", job_flavour="shortest"),
            200,
            1,
            "the longest of CERN's job flavours allows 168 h",
            "lower `time`",
        ),
    ],
)
def test_times_beyond_a_limit(command, site: Site, hours: float, branches: int, text: str, hint: str) -> None:
    command("sinfo", SINFO)
    command("sbatch", "")
    with pytest.raises(ConfigError, match=text) as error:
        within_limits(site, Request(StepResources(time=hours), branches))
    assert hint in error.value.hint


def test_within_all_limits_the_lowest_bounds_later_attempts(command) -> None:
    command("sinfo", SINFO)
    called = command("sbatch", "sbatch: Job 7 to start at now")
    asked = StepResources(time=4, memory=4)
    site = within_limits(Site(workflow="slurm", max_time=48, account="alice"), Request(asked, 6))
    assert site.max_time == 24
    assert "--account=alice" in called.read_text()
    assert "--time=1440 " in called.read_text()
    note = {"memory": 1.0, "time": 2.0}
    assert ("time", 1440) in slurm_lines(asked, site, note, 6), "the limit holds for the whole job"
    assert ("time", 1440) in slurm_lines(asked, site, note, 3)
    assert ("time", 480) in slurm_lines(asked, site, note, 1)
    command("condor_status", POOL)
    site = within_limits(Site(workflow="htcondor", max_memory=1000), Request(StepResources(cores=2)))
    assert site.max_memory == 512, "no slot has more"
    cern = within_limits(read_profile("lxplus"), Request(asked, 6))
    assert dict(htcondor_lines(asked, cern, {"time": 64.0}, 6, "a-b-c-d"))["+JobFlavour"] == '"nextweek"'


def test_a_flavour_of_the_profile_overrules_what_jobs_ask_for(command) -> None:
    command("condor_status", POOL)
    site = within_limits(Site("cern", "htcondor", job_flavour="workday"), Request(StepResources(time=12)))
    assert site.max_time == 8
    assert dict(htcondor_lines(StepResources(time=12), site, {}, 1, "a-b-c-d"))["+JobFlavour"] == '"workday"'


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (StepResources(cores=100), "100 cores"),
        (StepResources(memory=600), "600 GB"),
        (StepResources(gpus=5), "5 GPU"),
        (StepResources(gpus=1, disk=90), "90 GB of disk, 1 GPU"),  # one slot has the disk, another the GPU
    ],
)
def test_jobs_that_no_slot_fits_are_refused(command, asked: StepResources, text: str) -> None:
    command("condor_status", POOL)
    with pytest.raises(ConfigError, match=r"no slot of the pool fits jobs with .*wait for ever") as error:
        within_limits(Site(workflow="htcondor"), Request(asked))
    assert text in error.value.what
    assert "at most 64 cores, 512 GB, 97.66 GB of disk, 4 GPU" in error.value.hint
    within_limits(Site(workflow="htcondor", on_demand="yes"), Request(asked))


@pytest.mark.parametrize(("text", "code"), [("", 0), ("Error: communication error", 1)])
def test_a_pool_that_shows_no_slots_is_no_obstacle(command, text: str, code: int) -> None:
    command("condor_status", text, code)
    site = Site(workflow="htcondor", max_memory=4)
    assert within_limits(site, Request(StepResources(cores=100))) == site


def test_what_sbatch_would_refuse_is_said_in_its_words(command) -> None:
    command("sinfo", SINFO)
    command("sbatch", "allocation failure: Invalid account or account/partition combination specified", 1)
    with pytest.raises(ConfigError, match=r"Slurm would not take jobs with 1 cores, 2 GB, 4 h: .*Invalid account"):
        within_limits(Site(workflow="slurm"), Request(StepResources()))
    command("sbatch", "allocation failure: Socket timed out on send/recv operation", 1)
    assert within_limits(Site(workflow="slurm"), Request(StepResources())).max_time == 24, "that may pass"


def test_memory_beyond_the_profiles_limit() -> None:
    with pytest.raises(ConfigError, match=r"16 GB, the profile local allows 8 GB \(max_memory\)"):
        within_limits(Site(max_memory=8), Request(StepResources(memory=16)))


def test_a_quota_that_is_used_up_is_said(command, tmp_path: Path) -> None:
    device = disks.mount_of(tmp_path).device
    head = "Disk quotas for user me (uid 7):\n     Filesystem  blocks  quota  limit  grace  files  quota  limit  grace"
    called = command("quota", f"{head}\n  elsewhere 1 2 3 0 0 0 0 0\n  {device} 990000* 900000 1000000 17 1 0 0 0", 1)
    assert quota_of(tmp_path) == Quota(990_000 * 1024, 1_000_000 * 1024, "quota")
    assert called.read_text() == "-w -p\n"
    with pytest.raises(DiskFull, match=r"only 9 MB left \(your quota, says `quota`\)"):
        check_site(Site(), tmp_path)
    command("quota", f"{head}\n  {device} 990000 0 0 0 1 0 0 0")
    assert quota_of(tmp_path) is None, "no limit"
    assert room(tmp_path)[1] == "the disk"
    command("quota", "quota: cannot ask nas: timed out", 1)
    check_site(Site(), tmp_path)


def test_quotas_of_afs_and_eos(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "resolve", lambda self, **_: self)
    monkeypatch.setenv("LOGNAME", "me")
    afs = "Volume Name                    Quota       Used %Used   Partition\nuser.me  10000000    9990000  100%<< 62%"
    called = command("fs", afs)
    assert quota_of(Path("/afs/cern.ch/user/m/me")) == Quota(9_990_000 * 1024, 10_000_000 * 1024, "fs listquota")
    assert called.read_text() == "listquota -path /afs/cern.ch/user/m/me\n"
    line = "quota=node uid={} space=/eos/user/m/ usedbytes=50 usedlogicalbytes=25 usedfiles=7 maxlogicalbytes={}"
    command("eos", "\n".join([line.format("other", 50), line.format("me", 100)]))
    assert quota_of(Path("/eos/user/m/me/store")) == Quota(25, 100, "eos quota")


def test_what_the_jobs_will_write_must_fit(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=f"{tmp_path}: only .* MB left .*, the job needs 953674316 MB"):
        check_site(Site(), tmp_path, needed=10**15)


def test_the_folder_of_job_files_is_looked_at_too(tmp_path: Path, command) -> None:
    for name in ("condor_submit", "condor_q", "condor_history", "condor_rm"):
        command(name, "")
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=r"\[P200\] .*file"):
        check_site(Site(workflow="htcondor", submit_dir=str(tmp_path / "file")), tmp_path)
    check_site(Site(workflow="htcondor", submit_dir=str(tmp_path / "submit")), tmp_path)
    assert not list((tmp_path / "submit").iterdir())
