"""The ``AODFiles`` object that a machine gets for an AO2D file, made from its logical file name (LFN)."""

from __future__ import annotations

import re
from typing import Any

_LAYOUT = re.compile(
    r"/alice/(?:sim|data)/\d{4}/(?P<period>[^/]+)/(?:\d+/)?(?P<run>\d{1,18})/(?:AOD/)?(?P<number>\d{1,18})/[^/]+",
    re.ASCII,
)


def aod_file(lfn: str, size: int | None = None) -> dict[str, Any]:
    """Return the object for one AO2D file; fields that neither the LFN nor the caller gives are left out.

    Args:
        lfn: ``/alice/(sim|data)/<year>/<LHCperiod>/[<n>/]<run>/[AOD/]<nnn>/AO2D.root``, or any other path or address.
        size: bytes, as the catalogue has it.

    >>> aod_file("/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root", 7)["RunNumber"]
    535084
    """
    described: dict[str, Any] = {"Name": lfn.rsplit("/", 1)[-1], "Path": lfn}
    if size is not None:
        described["Size"] = size
    layout = _LAYOUT.fullmatch(lfn)
    if layout:
        described["LHCPeriod"] = layout["period"]
        described["RunNumber"] = int(layout["run"])
        described["AODNumber"] = int(layout["number"])
    return described
