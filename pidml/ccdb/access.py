"""Who we are for CCDB and whom we trust: client certificate, its key, and certificate authorities.

The paths of certificate and key stand in no message, log or record: what fails is said by the name of the variable.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pidml.errors import ConfigError

#: Variables that name certificate and key, the first pair that is set counts. A proxy is both in one file.
_PAIRS = (
    ("PIDML_CCDB_CERT", "PIDML_CCDB_KEY"),
    ("X509_USER_PROXY", "X509_USER_PROXY"),
    ("X509_USER_CERT", "X509_USER_KEY"),
    ("JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY"),
)
_AUTHORITIES = ("PIDML_CCDB_CA", "X509_CERT_DIR")
_HINT = "name files that you can read in {names}; a GRID token or proxy will do"


@dataclass(frozen=True)
class Access:
    """How connections to CCDB are secured; nothing of it is shown when it is printed.

    Attributes:
        certificate: client certificate (PEM), or None.
        key: its private key (PEM, not encrypted), or None.
        authorities: file or folder of certificate authorities; None for those that come with Python's requests.
        names: what the two are called in messages.
    """

    certificate: Path | None = field(default=None, repr=False)
    key: Path | None = field(default=None, repr=False)
    authorities: Path | None = field(default=None, repr=False)
    names: tuple[str, str] = _PAIRS[0]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Access:
        """Read ``PIDML_CCDB_CERT``, ``PIDML_CCDB_KEY`` and ``PIDML_CCDB_CA``, or the usual variables of the GRID.

        Raises:
            ConfigError: a certificate is named without its key, or the other way round.
        """
        authorities = next((Path(environ[name]) for name in _AUTHORITIES if environ.get(name)), None)
        for names in _PAIRS:
            given = [name for name in names if environ.get(name)]
            if len(given) == 1:
                absent = next(name for name in names if name not in given)
                raise ConfigError(f"{given[0]} is set without {absent}", "set both or neither")
            if given:
                return cls(Path(environ[names[0]]), Path(environ[names[1]]), authorities, names)
        return cls(authorities=authorities)

    def context(self) -> ssl.SSLContext:
        """Return a context that shows the certificate, if there is one, and verifies the server's.

        Raises:
            ConfigError: certificate, key or authorities cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # requests adds the authorities of `verify`
        if self.certificate is None or self.key is None:
            return context
        for path, name in zip((self.certificate, self.key), self.names, strict=True):
            self._check_readable(path, name)
        try:
            # A key that needs a password would ask for it on the terminal; an empty one is refused instead.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError, ValueError):
            encrypted = b"ENCRYPTED" in self.key.read_bytes()
            reason = "the key is encrypted" if encrypted else "they are no PEM certificate and key that belong together"
            raise ConfigError(f"{self.names[0]}, {self.names[1]}: {reason}", self._hint()) from None
        return context

    def verify(self) -> str | bool:
        """Return what requests is to verify the server with.

        Raises:
            ConfigError: the authorities are not there.
        """
        if self.authorities is None:
            return True
        if not self.authorities.exists():
            raise ConfigError("PIDML_CCDB_CA (or X509_CERT_DIR): no such file or folder", "correct or unset it")
        return str(self.authorities)

    def require(self) -> None:
        """Check that there is a certificate.

        Raises:
            ConfigError: there is none.
        """
        if self.certificate is None:
            raise ConfigError("CCDB stores only from clients with a certificate, and none is named", self._hint())

    def _check_readable(self, path: Path, name: str) -> None:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{name}: {error.strerror}", self._hint()) from None

    def _hint(self) -> str:
        return _HINT.format(names=" and ".join(dict.fromkeys(self.names)))
