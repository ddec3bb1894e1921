"""Reads a bundle and applies it as O2Physics would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import Scaling
from pidml.data.taught import Taught
from pidml.errors import BundleError, MissingColumn
from pidml.evaluation.working_points import at_pt
from pidml.export.files import COLUMNS_FILE, JOINT, MANIFEST, SCALING_FILE, THRESHOLDS_FILE, THRESHOLDS_PT_FILE
from pidml.export.runtime import BATCH, run, session
from pidml.identity import file_checksum

Array = NDArray[np.float32]
#: Files without which a bundle cannot be applied.
_READ = (JOINT, COLUMNS_FILE, SCALING_FILE, THRESHOLDS_FILE)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found complete and unchanged.

    Attributes:
        path: its directory.
        manifest: content of ``manifest.json``.
        scaling: how features are standardised, as read from the JSON files that O2Physics reads.
        thresholds: certainty from which a track is accepted, per species.
        limits: momenta below which TOF and TRD are hidden.
        threads: batches evaluated side by side; 0 for as many as this process may use cores.
        pt_table: content of ``thresholds_pt.json``, None if thresholds do not depend on transverse momentum.
    """

    path: Path
    manifest: dict[str, Any]
    scaling: Scaling
    thresholds: dict[str, float]
    limits: tracks.MomentumLimits
    threads: int = field(default=0, compare=False)
    pt_table: dict[str, Any] | None = None

    @classmethod
    def open(cls, path: Path | str, threads: int = 0) -> Bundle:
        """Open the bundle in the directory ``path``.

        Raises:
            BundleError: the directory is no bundle, or a file is absent or not what the manifest says.
        """
        path = Path(path)
        manifest = _manifest(path / MANIFEST)
        for name, entry in manifest["files"].items():
            _check(path / name, entry)
        names = _json(path / COLUMNS_FILE)["columns_for_training"]
        limits = tracks.MomentumLimits(**manifest["momentum_limits"])
        scaling = Scaling.from_o2(names, _json(path / SCALING_FILE))
        pt_table = _json(path / THRESHOLDS_PT_FILE) if THRESHOLDS_PT_FILE in manifest["files"] else None
        return cls(path, manifest, scaling, _json(path / THRESHOLDS_FILE), limits, threads, pt_table)

    @property
    def features(self) -> tuple[str, ...]:
        """Feature names, in the order of the networks' inputs."""
        return self.scaling.names

    @property
    def species(self) -> tuple[str, ...]:
        """Species, in the order of the outputs of :meth:`predict`."""
        return tuple(each["name"] for each in self.manifest["species"])

    @cached_property
    def taught(self) -> Taught | None:
        """What the networks' training sample taught them; None if the bundle was written before that was noted."""
        found = self.manifest.get("training")
        return None if found is None else Taught.from_json(self.features, found)

    @cached_property
    def _joint(self) -> ort.InferenceSession:
        return session(self.path / JOINT)

    def network(self, species: str) -> ort.InferenceSession:
        """Return the network of one species, opened anew; its output has shape (batch, 1)."""
        return session(self.path / f"{species}.onnx")

    def predict(self, features: Array, batch: int = BATCH) -> Array:
        """Return certainties, float32 (tracks, species).

        Args:
            features: float32 (tracks, features) in the bundle's order, raw units, NaN where missing, with the momentum
                limits applied (as in prepared data); otherwise :meth:`predict_columns` is the method to use.
            batch: tracks evaluated at once.

        Raises:
            BundleError: the matrix has another number of columns than the bundle has features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.features):
            raise BundleError(
                f"{self.path}: features of shape {features.shape} given, (tracks, {len(self.features)}) needed",
                f"columns in this order: {', '.join(self.features)}",
            )
        if len(features) == 0:
            return np.zeros((0, len(self.species)), np.float32)
        return run(self._joint, self.scaling.apply(np.asarray(features, np.float32)), batch, self.threads)

    def predict_columns(self, columns: Mapping[str, NDArray[Any]], batch: int = BATCH) -> Array:
        """Return certainties, float32 (tracks, species), of columns as a track table holds them.

        Args:
            columns: column name → values, shape (tracks,), with any on-disk encoding of missing values; must hold the
                features and ``fP``.
            batch: tracks evaluated at once.

        Raises:
            MissingColumn: a feature or ``fP`` is not among the columns.
        """
        return self.predict(self.matrix(columns), batch)

    def matrix(self, columns: Mapping[str, NDArray[Any]]) -> Array:
        """Return the features as a matrix, missing values and momentum limits applied; see :meth:`predict_columns`."""
        needed: Sequence[str] = (*self.features, "fP")
        if absent := [name for name in dict.fromkeys(needed) if name not in columns]:
            raise MissingColumn(
                f"{self.path}: the bundle needs {', '.join(absent)}, which the table does not have",
                "apply it to tables with the columns in columns_for_training.json",
            )
        own = {name: np.array(columns[name], np.float32) for name in self.features}
        tracks.normalise_missing(own)
        tracks.apply_momentum_limits(own, np.asarray(columns["fP"], np.float32), self.limits)
        return np.stack([own[name] for name in self.features], axis=1)

    def accepted(self, certainties: Array, pt: NDArray[Any] | None = None) -> NDArray[np.bool_]:
        """Return which tracks are accepted as which species, (tracks, species).

        Args:
            certainties: as :meth:`predict` gives them.
            pt: transverse momenta, GeV/c, (tracks,); needed if thresholds depend on them.

        Raises:
            BundleError: transverse momenta are needed and not given.
        """
        cuts = np.array([self.thresholds[name] for name in self.species])
        if self.pt_table is not None and pt is None:
            raise BundleError(
                f"{self.path}: thresholds depend on transverse momentum, which is not given", "give pt, in GeV/c"
            )
        limits = cuts.astype(np.float32) if pt is None else at_pt(cuts, self.pt_table, pt)
        return np.asarray(certainties >= limits)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: no readable part of a bundle: {error}", "export or download it again") from error


def _manifest(path: Path) -> dict[str, Any]:
    found = _json(path)
    content: dict[str, Any] = found if isinstance(found, dict) else {}
    absent = [key for key in ("files", "momentum_limits", "species") if key not in content]
    absent += [name for name in _READ if name not in content.get("files", {})]
    if absent:
        raise BundleError(f"{path}: says nothing of {', '.join(absent)}", "export or download the bundle again")
    return content


def _check(path: Path, entry: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: the manifest names this file, but it is not there", "download the bundle again")
    if path.stat().st_size != entry["size"] or file_checksum(path) != entry["sha256"]:
        raise BundleError(f"{path}: not the file that the manifest describes", "download the bundle again")
