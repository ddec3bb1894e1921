"""How many tasks luigi runs side by side on this machine, and of which kind."""

from __future__ import annotations

import os

import luigi.configuration

from pidml.fetch import FetchOptions

#: The resource of luigi of which every download takes one; computations take one of ``compute``, of which there is one.
DOWNLOADS = "download"
#: Beside downloads: one computation, and an upload.
_OTHERS = 2


def configure() -> None:
    """Let as many files be fetched side by side as ``PIDML_FETCH_PARALLEL`` says, and others go on meanwhile.

    ``--workers N`` on the command line, and ``workers`` in a configuration, bound everything together.

    Raises:
        ConfigError: the variable holds something else than a number that is allowed.
    """
    parallel = FetchOptions.from_env(os.environ).parallel
    parser = luigi.configuration.get_config()  # type: ignore[no-untyped-call]
    for section in ("core", "resources"):
        if not parser.has_section(section):
            parser.add_section(section)
    parser.set("resources", DOWNLOADS, str(parallel))
    if not parser.has_option("core", "workers"):
        parser.set("core", "workers", str(parallel + _OTHERS))
