"""The one class of targets: a directory that exists only complete."""

from __future__ import annotations

import shutil
from pathlib import Path

import law

from pidml.atomic import temporary_sibling
from pidml.provenance import FILE_NAME


class OutputDirectory(law.LocalDirectoryTarget):
    """A step's output directory. It is renamed into place as a whole, with its provenance; nothing else counts."""

    def exists(self, **kwargs: object) -> bool:  # noqa: ARG002 - law's signature
        """Tell whether the output is there, complete."""
        return Path(self.path, FILE_NAME).is_file()

    def remove(self, silent: bool = True, **kwargs: object) -> bool:  # noqa: ARG002 - law's signature
        """Remove the output; it goes by renaming first, so that it never exists incomplete."""
        path = Path(self.path)
        if not path.is_dir():
            return False
        hidden = temporary_sibling(path)
        path.rename(hidden)
        shutil.rmtree(hidden)
        return True

    def _repr_pairs(self, color: bool = True) -> list[tuple[str, str]]:  # noqa: ARG002 - law's signature
        return [("path", self.path)]
