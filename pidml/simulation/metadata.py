"""The key ``metaData`` of simulated files: tells readers that the exact likelihood of the tracks is known."""

from __future__ import annotations

import json
from typing import Any

KEY = "metaData"
#: What is written under the key. Files of O2Physics hold a ``TMap`` of the same name, which has no such entry.
TEXT = json.dumps({"DataType": "MC", "RecoPassName": "simulation", "simulator": "pidml"})


def made_by_simulation(file: Any) -> bool:
    """Tell whether an open ROOT file (``uproot.ReadOnlyDirectory``) says that this package simulated its tracks.

    A producer of track tables passes the entry on by writing :data:`TEXT` under :data:`KEY` itself.
    """
    # not `KEY in file`: where it is absent, uproot lists the keys of all directories
    return file.classnames(recursive=False, cycle=False).get(KEY) == "TObjString" and str(file[KEY]) == TEXT
