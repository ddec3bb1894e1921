"""No key, certificate or .env gets into an image: not into the build context, not into a layer; only into a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pidml import resources

ROOT = resources.ROOT
CONTAINERFILES = sorted((ROOT / "containers").glob("Containerfile*"))
SECRET_WORDS = re.compile(r"secret|token|passw|_KEY\b|_CERT\b|PRIVATE", re.IGNORECASE)
#: Where people leave secrets; beside and inside everything that is copied.
PLANTED = (
    ".env", ".env.local", "machine.env", "server.env", "usercert.pem", "userkey.pem", "tokencert_1000.pem",
    "tokenkey_1000.pem", "host.key", "host.crt", "grid.p12", "grid.pfx", "x509up_u1000", "id_ed25519", ".netrc",
    ".globus/userkey.pem", ".globus/anything", ".ssh/config",
)  # fmt: skip


def matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern of an ignore file matches a path or a folder that it lies in, as container builds do.

    >>> matches("**/*.pem", "a/b/x.pem"), matches("*.pem", "a/x.pem"), matches("a", "a/b/c"), matches("*", ".git/x")
    (True, False, True, True)
    """
    regex = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        regex += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    pieces = path.split("/")
    return any(re.fullmatch(regex, "/".join(pieces[:end])) for end in range(1, len(pieces) + 1))


def in_context(path: str, patterns: list[str]) -> bool:
    """Tell whether a file is sent to the builder: the last pattern that matches decides."""
    included = True
    for pattern in patterns:
        if matches(pattern.removeprefix("!"), path):
            included = pattern.startswith("!")
    return included


def patterns() -> list[str]:
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return instruction and arguments of every line of a Containerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def copied(path: Path) -> list[str]:
    """Return what is copied from the build context."""
    return [word for name, rest in instructions(path) if name == "COPY" for word in shlex.split(rest)[:-1]]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def folders() -> list[str]:
    sources = {source for path in CONTAINERFILES for source in copied(path) if (ROOT / source).is_dir()}
    inner = {str(path.relative_to(ROOT)) for each in sources for path in (ROOT / each).rglob("*") if path.is_dir()}
    return ["", "containers", "store/jobs/1", ".sandbox", "tests", *sorted(sources | inner)]


@pytest.mark.parametrize("name", PLANTED)
def test_no_secret_gets_into_the_build_context_wherever_it_lies(name: str) -> None:
    planted = [f"{folder}/{name}".lstrip("/") for folder in folders()]
    assert [path for path in planted if in_context(path, patterns())] == []


def test_the_context_is_what_is_copied_and_nothing_else() -> None:
    sources = {source for path in CONTAINERFILES for source in copied(path)}
    included = [path for path in tracked() if in_context(path, patterns())]
    wanted = [path for path in tracked() if any(path == each or path.startswith(f"{each}/") for each in sources)]
    assert included == wanted
    assert {path.split("/")[0] for path in included} == sources
    assert not in_context("pidml/__pycache__/x.pyc", patterns())
    assert not in_context(".git/config", patterns())


def test_docker_and_podman_ignore_the_same() -> None:
    assert (ROOT / ".dockerignore").read_bytes() == (ROOT / ".containerignore").read_bytes()


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_no_instruction_brings_a_secret_into_a_layer(path: Path) -> None:
    for name, rest in instructions(path):
        assert name not in ("ADD", "ARG"), "what is built depends on the copied files alone"
        assert not SECRET_WORDS.search(rest), f"{name} {rest}"
        if name == "COPY":
            assert not {word for word in shlex.split(rest)[:-1] if word.startswith((".", "/", "*", "--"))}


def test_secrets_are_handed_over_when_a_container_starts_and_are_in_no_file_that_is_kept() -> None:
    compose = yaml.safe_load((ROOT / "containers" / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert "args" not in service.get("build", {})
        assert not SECRET_WORDS.search(json.dumps([service.get("environment"), service["command"]]))
        env_file = f"containers/{service['env_file']}"
        assert not in_context(env_file, patterns())
        assert env_file not in tracked()
        ignored = subprocess.run(["git", "check-ignore", "-q", env_file], cwd=ROOT, check=False)
        assert ignored.returncode == 0, f"{env_file} could be committed"


def test_the_entry_point_takes_the_key_from_its_environment(tmp_path: Path) -> None:
    """What follows ``tini --`` in the image, started as a runtime would start it: in an empty folder."""
    [entry] = [json.loads(rest) for name, rest in instructions(CONTAINERFILES[0]) if name == "ENTRYPOINT"]
    assert entry == ["tini", "--", "pidml"]
    run = {"MACHINE_ID": "7", "MACHINE_SECRET_KEY": "given-at-run-time", "ALICETRAINT_BASE_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", entry[-1], "poll", "--once"]
    done = subprocess.run(
        command, env=os.environ | run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "cannot be reached" in done.stderr, "it got as far as asking the server"
    assert "not set" not in done.stderr
    assert "given-at-run-time" not in done.stderr + done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"given-at-run-time" in path.read_bytes()] == []
    without = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "not set: MACHINE_ID, MACHINE_SECRET_KEY, ALICETRAINT_BASE_URL" in without.stderr
