"""Installs the stand-ins of O2Physics into a folder, and tells what they were given."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.container_daemon import ContainerDaemon
from support.o2_stand_in import IMAGE

from pidml.producer import o2physics_chain

SCRIPT = Path(__file__).with_name("o2_stand_in.py")
PROGRAMS = (
    *o2physics_chain._OLDER,
    *o2physics_chain._CURRENT,
    *(each.program for each in o2physics_chain.CONVERTERS),
    o2physics_chain.PRODUCER,
)

__all__ = ["IMAGE", "StandIns", "install"]


@dataclass
class StandIns:
    """Stand-ins in a folder of their own."""

    folder: Path
    ready: dict[str, str]
    daemon: ContainerDaemon | None = None

    def environment(self, *tools: str, o2: bool = False) -> dict[str, str]:
        """Return an environment in which only these tools are installed (``alienv``, ``docker``, …; O2 itself)."""
        bin_folder = self.folder / "-".join(("bin", *tools))
        _programs(bin_folder, tools)
        path = [str(bin_folder), *([str(self.folder / "o2")] if o2 else []), "/usr/bin", "/bin"]
        return {
            "PATH": ":".join(path),
            "O2_STAND_IN": str(self.folder / "settings.json"),
            "TMPDIR": str(self.folder),
            "MACHINE_SECRET_KEY": "the machine's own key",
        }

    def faults(self, **faults: dict[str, Any]) -> None:
        """Say how programs fail (``trackselection={"status": 3}``: the task ``o2-analysis-trackselection``)."""
        named = {f"o2-analysis-{name.replace('_', '-')}": fault for name, fault in faults.items()}
        content = {"log": str(self.folder / "log"), "o2": str(self.folder / "o2"), "faults": named, "ready": self.ready}
        content["daemon"] = self.daemon.port if self.daemon else 0
        (self.folder / "settings.json").write_text(json.dumps(content))

    def calls(self, program: str = "") -> list[dict[str, Any]]:
        """Return what was started, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [call for call in map(json.loads, lines) if program in ("", call["program"])]


def install(folder: Path, ready: dict[str, str], daemon: ContainerDaemon | None = None) -> StandIns:
    """Install all programs; ``ready`` names the files that the last stage copies instead of writing its own.

    docker and podman need the daemon that runs their containers.
    """
    _programs(folder / "o2", PROGRAMS)
    stand_ins = StandIns(folder, ready, daemon)
    stand_ins.faults()
    return stand_ins


def _programs(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\nimport {SCRIPT.stem}\n"
            f"{SCRIPT.stem}.main()\n"
        )
        path.chmod(0o755)
