"""The one class of targets: a directory that exists only complete."""

from __future__ import annotations

from pathlib import Path

import law

from pidml.provenance import FILE_NAME


class OutputDirectory(law.LocalDirectoryTarget):
    """A step's output directory. It is renamed into place as a whole, with its provenance; nothing else counts."""

    def exists(self, **kwargs: object) -> bool:  # noqa: ARG002 - law's signature
        """Tell whether the output is there, complete."""
        return Path(self.path, FILE_NAME).is_file()

    def _repr_pairs(self, color: bool = True) -> list[tuple[str, str]]:  # noqa: ARG002 - law's signature
        return [("path", self.path)]
