"""What jobs on a worker are told: settings and places that exist there; no secret, and nothing of one machine alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidml.alicetraint.jobs import JOB_DIR_VARIABLE
from pidml.batch import environment as forwarding
from pidml.batch.environment import job_environment

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that workers see, beside one that they do not."""
    monkeypatch.setattr(forwarding, "_OF_ONE_MACHINE", (tmp_path / "tmp",))
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "credential").write_text(PEM)
    return tmp_path / "home"


def forwarded(tmp_path: Path, **given: str) -> dict[str, str]:
    made = job_environment({"HOME": "/home/a", **given}, tmp_path, 4)
    return {key: value for key, value in made.items() if key in given}


def test_settings_go_to_jobs_and_secrets_do_not(tmp_path: Path) -> None:
    secrets = {
        "PIDML_SITE": "slurm", "PIDML_SERVER_TOKEN": "secret", "MACHINE_SECRET_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret", "PIDML_ANYTHING": PEM,
    }  # fmt: skip
    assert forwarded(tmp_path, PIDML_GRID="sandbox", LANG="C", **secrets) == {"PIDML_GRID": "sandbox", "LANG": "C"}
    assert job_environment({}, tmp_path, 4)["OMP_NUM_THREADS"] == "4"


def test_a_job_is_not_taken_for_a_process_of_the_poller(tmp_path: Path) -> None:
    assert not forwarded(tmp_path, **{JOB_DIR_VARIABLE: "/store/jobs/1"})


@pytest.mark.parametrize("name", ["X509_USER_PROXY", "JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY", "KRB5CCNAME"])
def test_the_place_of_a_credential_is_told_only_if_workers_see_it(shared: Path, name: str) -> None:
    seen, local = str(shared / "credential"), str(shared.parent / "tmp" / "credential")
    assert forwarded(shared, **{name: seen}) == {name: seen}
    (shared / "link").symlink_to(local)
    for value in (local, str(shared / "link"), str(shared / "absent"), PEM, "credential", "/" + "x" * 5000, "\0", ""):
        assert not forwarded(shared, **{name: value}), value


def test_of_kerberos_only_caches_in_a_file_can_be_on_a_worker(shared: Path) -> None:
    seen = f"FILE:{shared / 'credential'}"
    assert forwarded(shared, KRB5CCNAME=seen) == {"KRB5CCNAME": seen}
    for value in (f"FILE:{shared.parent}/tmp/credential", f"DIR:{shared}", "KEYRING:persistent:1000", "KCM:"):
        assert not forwarded(shared, KRB5CCNAME=value)


def test_what_lies_in_tmp_is_of_this_machine(tmp_path: Path) -> None:
    assert not forwarded(tmp_path, X509_CERT_DIR="/tmp")
    assert forwarded(tmp_path, X509_CERT_DIR="/etc"), "exists on every machine of a cluster"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("http://me:secret@proxy:3128", "http://proxy:3128"),
        ("http://me:se@cret@proxy:3128/", "http://proxy:3128/"),
        ("me:secret@proxy:3128", "proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
        ("", ""),
    ],
)
def test_web_proxies_lose_user_and_password(tmp_path: Path, given: str, told: str) -> None:
    assert forwarded(tmp_path, https_proxy=given) == {"https_proxy": told}
