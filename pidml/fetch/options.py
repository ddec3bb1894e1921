"""Settings of downloads, read from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from pidml.errors import ConfigError
from pidml.fetch.redaction import redacted

#: Where logical file names are looked up unless PIDML_GRID says otherwise: the simulated period, then the real GRID.
DEFAULT_GRID = ("sandbox", "alien")
_GRID_SCHEMES = ("http", "https", "root", "s3")


@dataclass(frozen=True)
class FetchOptions:
    """How files are fetched.

    Args:
        grid: where logical file names are looked up, in this order: ``alien`` (``alien_cp``), ``sandbox`` (files of the
            simulated period, made on the spot), an ``http(s)``, ``root`` or ``s3`` address to which the LFN is
            appended, or a local folder.
        fallbacks: (beginning of an address, what to try in its place when it fails, in this order).
        file_roots: local folders that ``file://`` and local paths may lead to; ``None`` does not restrict.
        attempts: rounds over all sources before giving up.
        connect_timeout: in s.
        read_timeout: longest silence of a server, in s.
        attempt_timeout: longest time for one attempt, in s.
        backoff: mean pause after the first failed round, in s; doubles with each round.
        max_backoff: longest pause, in s; also the longest ``Retry-After`` that is followed.
        streams: parallel streams of ``alien_cp`` (at most 15).
        parallel: files that a job fetches side by side.
        reserve: disk space that is left free, in B.
    """

    grid: tuple[str, ...] = DEFAULT_GRID
    fallbacks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    file_roots: tuple[Path, ...] | None = None
    attempts: int = 5
    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    attempt_timeout: float = 6 * 3600.0
    backoff: float = 2.0
    max_backoff: float = 120.0
    streams: int = 4
    parallel: int = 4
    reserve: int = 64 * 1024 * 1024

    @classmethod
    def from_env(cls, environ: Mapping[str, str], from_server: bool = False) -> FetchOptions:
        """Read ``PIDML_GRID``, ``PIDML_FETCH_*`` and, for what a server asked for, ``PIDML_FILE_ROOTS``.

        Args:
            environ: the environment.
            from_server: whether the files are named by a server; then local ones are restricted to the folders in
                ``PIDML_FILE_ROOTS`` (none by default).

        Raises:
            ConfigError: says the variable, its value and what is allowed.
        """
        numbers = {
            "attempts": _number(environ, "PIDML_FETCH_ATTEMPTS", cls.attempts, 1, 1000, whole=True),
            "connect_timeout": _number(environ, "PIDML_FETCH_CONNECT_TIMEOUT", cls.connect_timeout, 0.1, 3600),
            "read_timeout": _number(environ, "PIDML_FETCH_READ_TIMEOUT", cls.read_timeout, 0.1, 86400),
            "attempt_timeout": _number(environ, "PIDML_FETCH_ATTEMPT_TIMEOUT", cls.attempt_timeout, 1, 7 * 86400),
            "backoff": _number(environ, "PIDML_FETCH_BACKOFF", cls.backoff, 0, 3600),
            "max_backoff": _number(environ, "PIDML_FETCH_MAX_BACKOFF", cls.max_backoff, 0, 86400),
            "streams": _number(environ, "PIDML_FETCH_STREAMS", cls.streams, 1, 15, whole=True),
            "parallel": _number(environ, "PIDML_FETCH_PARALLEL", cls.parallel, 1, 64, whole=True),
        }
        options = cls(
            grid=_grid(environ.get("PIDML_GRID", "")),
            fallbacks=_fallbacks(environ.get("PIDML_FETCH_FALLBACKS", "")),
            file_roots=_folders(environ.get("PIDML_FILE_ROOTS", "")) if from_server else None,
        )
        return replace(options, **numbers)  # type: ignore[arg-type]


def _number(
    environ: Mapping[str, str], name: str, default: float, minimum: float, maximum: float, whole: bool = False
) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} = {text[:80]!r}", f"allowed: {kind} from {minimum:g} to {maximum:g}")
    return value


def _grid(text: str) -> tuple[str, ...]:
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for entry in entries:
        scheme = urlsplit(entry).scheme
        folder = not scheme and Path(entry).expanduser().is_absolute()
        if entry not in DEFAULT_GRID and scheme not in _GRID_SCHEMES and not folder:
            raise ConfigError(
                f"PIDML_GRID = {redacted(entry)[:200]!r}",
                "allowed, separated by commas: alien, sandbox, an http(s), root or s3 address, an absolute folder",
            )
    return entries or DEFAULT_GRID


def _fallbacks(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    rules = []
    for rule in text.split(";"):
        if not rule.strip():
            continue
        beginning, _, alternatives = rule.partition("=")
        if not beginning.strip() or not alternatives.strip():
            raise ConfigError(
                f"PIDML_FETCH_FALLBACKS: {redacted(rule.strip())[:200]!r} is no rule",
                "write e.g. root://a.example//=root://b.example// https://c.example/; more rules after ';'",
            )
        rules.append((beginning.strip(), tuple(alternatives.split())))
    return tuple(rules)


def _folders(text: str) -> tuple[Path, ...]:
    folders = tuple(Path(entry) for entry in text.split(":") if entry)
    for folder in folders:
        if not folder.is_absolute():
            raise ConfigError(f"PIDML_FILE_ROOTS: {str(folder)!r} is not an absolute path", "separate folders with ':'")
    return folders
