"""The environment of a job on a worker: settings and the places of credentials, never the credentials themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pidml import resources
from pidml.alicetraint.jobs import JOB_DIR_VARIABLE

#: Variables that say where credentials and certificates lie.
_PLACES = {
    "X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "X509_CERT_DIR", "JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "KRB5CCNAME", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
}  # fmt: skip
#: Folders that every machine has for itself. What lies there is not on a worker; the batch system may have put another
#: file there, which the submitter's path must not replace.
_OF_ONE_MACHINE = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))  # noqa: S108 - nothing is written there
_WEB_PROXIES = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}
_PLAIN = {"AWS_PROFILE", "EOS_MGM_URL", "no_proxy", "NO_PROXY", "LANG", "LC_ALL"}
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|KEY$", re.IGNORECASE)
#: Where jobs run is decided where they are submitted; and the processes of a poller's job, which its next start ends
#: wherever it finds them, are known by the other one.
_STAYS = {"PIDML_SITE", JOB_DIR_VARIABLE}


def job_environment(environment: Mapping[str, str], store: Path, cores: int) -> dict[str, str]:
    """Return the variables that a job on a worker gets; never a secret, never the profile.

    Variables that name a file of credentials are left out where they hold anything but the path of an existing file
    that workers can see. Web proxies lose user and password.

    Args:
        environment: that of the submitting process.
        store: root of the store.
        cores: processor cores that the job asked for.
    """
    return dict(_forwarded(environment)) | {
        "PIDML_STORE": str(store),
        "LAW_CONFIG_FILE": str(resources.law_config()),
        "LAW__core__index_file": environment.get("LAW__core__index_file", str(resources.configs("law-index"))),
        "OMP_NUM_THREADS": str(cores),
        "PYTHONUNBUFFERED": "1",
    }


def _forwarded(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in environment.items():
        setting = key.startswith("PIDML_") and key not in _STAYS and not _SECRET.search(key)
        if (setting and "-----BEGIN" not in value) or key in _PLAIN or (key in _PLACES and _is_shared(value)):
            yield key, value
        elif key in _WEB_PROXIES:
            yield key, _without_user(value)


def _is_shared(value: str) -> bool:
    """Whether a value is the path of something that exists, elsewhere than in a folder of this machine alone."""
    path = Path(value.removeprefix("FILE:"))  # so does Kerberos; its other kinds of cache are of one machine
    try:
        return path.is_absolute() and path.exists() and not any(map(path.resolve().is_relative_to, _OF_ONE_MACHINE))
    except (OSError, ValueError):
        return False  # no path: JALIEN_TOKEN_CERT may hold the certificate itself


def _without_user(address: str) -> str:
    """Return an address without user and password.

    >>> _without_user("http://me:secret@proxy.example:3128")
    'http://proxy.example:3128'
    """
    user, at, _ = urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")
    return address.replace(f"{user}@", "", 1) if at else address
