"""One file on a server that fails on demand, fetched with little patience."""

from __future__ import annotations

import hashlib
import random

from support.fault_http import Served

from pidml.fetch import FetchOptions, fetch
from pidml.spec.data_sections import InputFile

CONTENT = random.Random(1).randbytes(3_000_000)

SHA256 = hashlib.sha256(CONTENT).hexdigest()

QUICK = FetchOptions(backoff=0.01, max_backoff=0.05, read_timeout=1.0, reserve=0)


def published(destination):
    """The content, after checking that nothing temporary is left beside it."""
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]
    return destination.read_bytes()


def serve(server, **settings):
    server.files["/a.root"] = served = Served(CONTENT, **settings)
    return served


def get(server, destination, options=QUICK, **file):
    return fetch(InputFile(path=f"{server.url}/a.root", **file), destination, options)
