"""HTCondor's programs for tests: those of the machine, or Debian's packages unpacked into a folder of their own.

Older Debian releases have no HTCondor, newer ones need newer system libraries. The packages are therefore fetched with
everything below them (apt checks the signatures) and unpacked, and the programs are told to use the libraries that lie
beside them. Nothing is installed, no rights are needed, and jobs run in the machine's own system.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PACKAGES = ("condor", "patchelf")
#: Of what the packages need: libraries and the programs themselves, but neither Python nor Perl nor web pages.
_WANTED = re.compile(r"(condor|patchelf|zlib|lib(?!python3\.\d+-|perl|js-))")
_ELF = b"\x7fELF"


def htcondor_prefix() -> Path:
    """Return the folder that holds ``bin`` and ``sbin`` of HTCondor; skips the test where it cannot be had."""
    if found := shutil.which("condor_master", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        return Path(found).resolve().parents[1]
    if shutil.which("apt-get") is None or not KEYRING.is_file() or os.uname().machine != "x86_64":
        pytest.skip("HTCondor is not installed, and only on Debian (x86_64) can it be fetched here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pidml-tests"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"htcondor-{RELEASE}"
    with (cache / "htcondor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _unpack(root, cache / f".{root.name}.tmp")
    return root / "usr"


def _unpack(root: Path, temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for package in _fetch(temporary / "apt"):
            if _WANTED.match(package.name):
                subprocess.run(["dpkg-deb", "--extract", package, temporary / "root"], check=True, timeout=60)
        _relocate(temporary / "root", root)
        (temporary / "root").rename(root)
    except subprocess.SubprocessError as error:
        pytest.skip(f"HTCondor could not be fetched: {error}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch(apt: Path) -> list[Path]:
    """Fetch the packages and all that they depend on, with an apt that knows nothing of this machine's packages."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {RELEASE} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}/state"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null"; APT::Install-Recommends "false"; Acquire::Languages "none";\n'
        'APT::Sandbox::User ""; Debug::NoLocking "true"; Acquire::Retries "2"; Acquire::http::Timeout "20";\n'
    )
    environment = os.environ | {"APT_CONFIG": str(apt / "apt.conf")}
    for command in (["update"], ["install", "--yes", "--download-only", *_PACKAGES]):
        subprocess.run(["apt-get", *command], env=environment, check=True, capture_output=True, timeout=150)
    return sorted((apt / "cache" / "archives").glob("*.deb"))


def _mirror() -> str:
    """Return the mirror that this machine's apt uses."""
    known = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False, timeout=60
    )
    found = [line for line in known.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    return found[0] if found else "http://deb.debian.org/debian"


def _relocate(made: Path, root: Path) -> None:
    """Have the programs load the libraries that will lie at ``root``."""
    loader = "usr/lib64/ld-linux-x86-64.so.2"
    libraries = ("usr/lib", "usr/lib/x86_64-linux-gnu")
    run = [made / loader, "--library-path", ":".join(str(made / each) for each in libraries), made / "usr/bin/patchelf"]
    wanted = ["--set-interpreter", root / loader, "--force-rpath"]
    wanted += ["--set-rpath", ":".join(str(root / each) for each in libraries)]
    for folder in ("bin", "sbin", "libexec/condor"):
        for path in sorted((made / "usr" / folder).glob("*condor_*")):
            if not path.is_symlink() and _is_program(path):
                subprocess.run([*run, *wanted, path], check=True, capture_output=True, timeout=60)


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ELF
