"""Taking out of addresses and messages what may be secret, before they are logged, raised or written down."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(?<=[^\s?])\?\S*=\S*")
_SECRETS = re.compile(r"(?i)\b(authz|authorization|signature|token|password|secret)[=:]\s*(bearer\s+|basic\s+)?\S+")


def redacted(address: str) -> str:
    """Return an address without what may be secret: user, password, query and fragment.

    >>> redacted("https://me:secret@storage.example/a.root?X-Amz-Signature=abc")
    'https://storage.example/a.root'
    """
    if "://" not in address:
        return address
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{re.split('[?#]', path)[0]}"


def redacted_text(text: str) -> str:
    """Return a message of another program or package without credentials that it may quote.

    >>> redacted_text("cannot read root://u:p@se.example//a?authz=abc (tried with authz=abc)")
    'cannot read root://se.example//a (tried with authz=…'
    """
    return _SECRETS.sub(r"\1=…", _QUERY.sub("", _USER.sub("", text)))
