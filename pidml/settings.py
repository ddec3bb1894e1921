"""The machine's own configuration, from the environment and a ``.env`` file.

A job says what to train; these settings say where: which server, which machine, which store, which tools. The names of
the older training module are understood (``ALICETRAINT_POOLING_WAIT_SECONDS`` is its spelling). What the environment
holds wins over ``.env``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

from pidml.errors import ConfigError
from pidml.fetch.options import FetchOptions
from pidml.secret import Secret

GIB = 1024**3
PRODUCERS = ("native", "o2physics")
MAX_MACHINE_ID = 2**63 - 1
#: Names of the older training module that have nothing to set here, and why.
OBSOLETE = {
    "ALICETRAINT_DATA_DIR_PATH": "downloads lie in the store (PIDML_STORE)",
    "ALICETRAINT_RESULTS_DIR_PATH": "results lie in the store (PIDML_STORE)",
    "ALICETRAINT_DATASET_CACHE_DIR_PATH": "data are shared between jobs in the store (PIDML_STORE)",
    "ALICETRAINT_SCRIPTS_DIR_PATH": "scripts come with this package",
    "ALICETRAINT_VENV_DIR_PATH": "the Python that runs the poller runs the jobs",
    "ALICETRAINT_PDI_SRC_DIR_PATH": "training is part of this package",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class ServerAddress:
    """What a machine needs to speak to its AliceTraINT server.

    Attributes:
        base_url: address without a slash at the end.
        machine_id: the number the server gave to this machine.
        secret: the key that came with it.
    """

    base_url: str
    machine_id: int
    secret: Secret


@dataclass(frozen=True)
class PollerLimits:
    """How the poller treats jobs; times in seconds, sizes in bytes.

    Attributes:
        wait: pause between two questions for a task when none was queued.
        slow_wait: pause after an answer that only a person can change (key refused, redirect).
        grace: how long a running job may go on to a safe point after a stop signal.
        wall_clock: a job that runs longer is ended and failed; 0 means no limit.
        min_free: free space below which no job is started, and a running one is ended.
        retry: pause before a job is tried again after a transient failure; it grows fourfold each time.
        attempts: tries that end in a transient failure, without progress between them, before the job is failed.
        lives: deaths of the poller during a job, without progress between them, before the job is failed.
        heartbeat: interval of heartbeat and checks while a job runs.
    """

    wait: float = 30.0
    slow_wait: float = 600.0
    grace: float = 60.0
    wall_clock: float = 0.0
    min_free: int = GIB
    retry: float = 60.0
    attempts: int = 4
    lives: int = 10
    heartbeat: float = 15.0


@dataclass(frozen=True)
class Settings:
    """The configuration of this machine; see :meth:`load`.

    Attributes:
        store: root of everything that is made.
        base_url: address of the AliceTraINT server, or ``None``.
        machine_id: number of this machine on the server, or ``None``.
        secret: its key, or ``None``.
        site: name of the profile in ``configs/sites`` that says where tasks run; empty for here.
        file_roots: local folders from which a server's task may name files.
        grid: where LFNs are looked up (see :class:`pidml.fetch.FetchOptions`); empty for the default.
        producer: backend that makes track tables of AO2D files.
        limits: the poller's limits.
        metrics_file: Prometheus text file that the poller keeps up to date, or ``None``.
        connect_seconds: longest time to connect to the server.
        read_seconds: longest silence of the server while it answers.
        extra: everything else in ``.env``, for jobs (options of downloads, places of certificates); may hold secrets.
        notes: what was understood but has no effect, one line each.
    """

    store: Path
    base_url: str | None = None
    machine_id: int | None = None
    secret: Secret | None = None
    site: str = ""
    file_roots: tuple[Path, ...] = ()
    grid: str = ""
    producer: str = "native"
    limits: PollerLimits = field(default_factory=PollerLimits)
    metrics_file: Path | None = None
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    extra: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
        """Read the configuration.

        Args:
            env: the environment; that of this process by default.
            dotenv: a file of ``KEY=value`` lines, read if it exists; ``None`` reads none.

        Raises:
            ConfigError: a value cannot be used; says which key, what it is and what is allowed. A key that is absent
                is missed only by what needs it (:meth:`server_address`).
        """
        environment = os.environ if env is None else env
        from_file = _dotenv(dotenv)
        values = from_file | {key: value for key, value in environment.items() if value}
        return cls(
            store=Path(values.get("PIDML_STORE", "store")).expanduser().absolute(),
            base_url=_read(values, "ALICETRAINT_BASE_URL", _base_url, None),
            machine_id=_read(values, "MACHINE_ID", _machine_id, None),
            secret=_read(values, "MACHINE_SECRET_KEY", _secret, None),
            site=values.get("PIDML_SITE", ""),
            file_roots=_read(values, "PIDML_FILE_ROOTS", _file_roots, ()),
            grid=_read(values, "PIDML_GRID", _grid, ""),
            producer=_read(values, "PIDML_PRODUCER", _producer, "native"),
            limits=_limits(values),
            metrics_file=_read(values, "PIDML_METRICS_FILE", lambda text: Path(text).expanduser().absolute(), None),
            connect_seconds=_read(values, "PIDML_CONNECT_SECONDS", _number(0.01, 600), 10.0),
            read_seconds=_read(values, "PIDML_READ_SECONDS", _number(0.01, 3600), 60.0),
            extra=tuple(sorted((key, value) for key, value in from_file.items() if not environment.get(key))),
            notes=tuple(f"{key} has no effect: {why}" for key, why in OBSOLETE.items() if values.get(key)),
        )

    def server_address(self) -> ServerAddress:
        """Return where and as whom to ask for tasks.

        Raises:
            ConfigError: machine id, key or address is not set.
        """
        found = {
            "MACHINE_ID": self.machine_id,
            "MACHINE_SECRET_KEY": self.secret,
            "ALICETRAINT_BASE_URL": self.base_url,
        }
        missing = [key for key, value in found.items() if value is None]
        if self.base_url is None or self.machine_id is None or self.secret is None:
            raise ConfigError(
                f"not set: {', '.join(missing)}",
                "set them in the environment or in a file .env here; id and key are shown once, when a machine is "
                "registered on the server's page",
            )
        return ServerAddress(self.base_url, self.machine_id, self.secret)

    def environment(self) -> dict[str, str]:
        """Return the variables from which a child process reads these same settings, the key among them."""
        values = {
            "PIDML_STORE": str(self.store),
            "PIDML_SITE": self.site,
            "PIDML_FILE_ROOTS": ":".join(str(root) for root in self.file_roots),
            "PIDML_GRID": self.grid,
            "PIDML_PRODUCER": self.producer,
            "PIDML_CONNECT_SECONDS": str(self.connect_seconds),
            "PIDML_READ_SECONDS": str(self.read_seconds),
            "ALICETRAINT_BASE_URL": self.base_url or "",
            "MACHINE_ID": "" if self.machine_id is None else str(self.machine_id),
            "MACHINE_SECRET_KEY": self.secret.reveal() if self.secret else "",
        }
        return dict(self.extra) | {key: value for key, value in values.items() if value}


def adopt_dotenv(path: Path = Path(".env")) -> None:
    """Let this process see the ``PIDML_`` settings of a ``.env`` file, so that ``law run`` works on the same store.

    Keys of machines and servers are left where they are: only the poller needs them.
    """
    for key, value in _dotenv(path).items():
        if key.startswith("PIDML_"):
            os.environ.setdefault(key, value)


def _dotenv(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        return {key: value for key, value in dotenv_values(path, interpolate=False).items() if value}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "make it UTF-8 text of KEY=value lines") from error


def _read(values: Mapping[str, str], key: str, convert: Callable[[str], _T], default: _T) -> _T:
    if key not in values:
        return default
    text = values[key].strip()
    try:
        return convert(text)
    except ValueError as error:
        # `from None`: the text may be a secret, and a chained ValueError would show it.
        raise ConfigError(f"{key}: {error}", "correct it in the environment or in .env") from None


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an address; allowed: http://host[:port][/path] or https://…")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the address holds a user, password, query or fragment; allowed: scheme, host, port, path")
    _ = parts.port  # raises ValueError if it is no port
    return text.rstrip("/")


def _machine_id(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_MACHINE_ID:
        raise ValueError(f"{text[:40]!r} is not the number that the server gave to the machine")
    return int(text)


def _secret(text: str) -> Secret:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("the key holds characters that no key has (it is not shown here)")
    return Secret(text)


def _file_roots(text: str) -> tuple[Path, ...]:
    roots = tuple(Path(part).expanduser() for part in text.split(":") if part)
    if relative := [str(root) for root in roots if not root.is_absolute()]:
        raise ValueError(f"{relative[0]!r} is not an absolute path")
    return roots


def _grid(text: str) -> str:
    FetchOptions.from_env({"PIDML_GRID": text})  # says what is allowed
    return text


def _producer(text: str) -> str:
    if text not in PRODUCERS:
        raise ValueError(f"{text!r} is none of {', '.join(PRODUCERS)}")
    return text


def _number(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return convert


def _limits(values: Mapping[str, str]) -> PollerLimits:
    default, day = PollerLimits(), 86_400.0
    old_wait = _read(values, "ALICETRAINT_POOLING_WAIT_SECONDS", _number(0.01, day), default.wait)
    return PollerLimits(
        wait=_read(values, "PIDML_POLL_SECONDS", _number(0.01, day), old_wait),
        slow_wait=_read(values, "PIDML_SLOW_POLL_SECONDS", _number(0.01, day), default.slow_wait),
        grace=_read(values, "PIDML_GRACE_SECONDS", _number(0, day), default.grace),
        wall_clock=_read(values, "PIDML_JOB_HOURS", _number(0, 8760), default.wall_clock / 3600) * 3600,
        min_free=int(_read(values, "PIDML_MIN_FREE_GB", _number(0, 1e6), default.min_free / GIB) * GIB),
        retry=_read(values, "PIDML_RETRY_SECONDS", _number(0, day), default.retry),
        attempts=int(_read(values, "PIDML_JOB_ATTEMPTS", _number(1, 1_000_000), float(default.attempts))),
        lives=int(_read(values, "PIDML_JOB_LIVES", _number(1, 1_000_000), float(default.lives))),
        heartbeat=_read(values, "PIDML_HEARTBEAT_SECONDS", _number(0.05, 3600), default.heartbeat),
    )
