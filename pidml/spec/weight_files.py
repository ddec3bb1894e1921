"""Where weights lie that a training starts from."""

from __future__ import annotations

from pathlib import Path

from pidml.errors import WarmStartError

#: Names of files with weights in the output of Train and in a bundle.
PATTERN = "model*.pt"


def weight_files(place: str) -> list[Path]:
    """Return the files with weights at a place: the file itself, or those in a directory, sorted; none for "".

    Raises:
        WarmStartError: there is no such file or directory, or the directory holds no weights.
    """
    if not place:
        return []
    path = Path(place)
    files = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
    if not files:
        raise WarmStartError(
            f"training.warm_start: {path} holds no {PATTERN}",
            "name an output directory of Train, a bundle, a model.pt or a last.ckpt",
        )
    if not files[0].is_file():
        raise WarmStartError(
            f"training.warm_start: there is no {path}", "correct the path; `pidml ls JOB` shows outputs"
        )
    return files
