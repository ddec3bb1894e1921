"""TrainTPCResponse: what TPC signal is expected of each species."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pidml.spec import JobSpec
from tasks.prepare import UsesPrepared


class TrainTPCResponse(UsesPrepared):
    """Learn expected TPC signal and resolution per hypothesis, for jobs that derive nσ from them."""

    reads = ("response", "seed")
    uploads = (("*.png", "image"), ("*.json", "log"), ("*.csv", "log"))
    upload_prefix = "response"

    @classmethod
    def asked_for(cls, spec: JobSpec) -> bool:
        """Only ``dataset.derive: [tpc_nsigma]`` asks for it."""
        return "tpc_nsigma" in spec.dataset.derive

    def make(self, out: Path) -> dict[str, Any]:
        """Learn, check on tracks not used, draw."""
        from pidml.response import train_tpc_response

        summary = train_tpc_response(self.prepared, self.spec, out)
        return {"response": dataclasses.asdict(summary)}
