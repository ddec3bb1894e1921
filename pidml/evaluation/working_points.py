"""Thresholds of all species, overall and per bin of transverse momentum, as a job asks for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml import species
from pidml.data.prepared import PreparedDataset, Split
from pidml.errors import CorruptFile
from pidml.evaluation.thresholds import Choice, choose
from pidml.spec.thresholds_section import Thresholds

_log = logging.getLogger(__name__)

#: Certainties of the first validation tracks, written by training: float32 (tracks, species).
CERTAINTY_FILE = "validation_certainty.npy"
#: Fewest tracks of a species in a bin that give it a threshold of its own; else it has the overall one.
_FEWEST = 50
_UNDEFINED = Choice(float("nan"), float("nan"), True)


@dataclass(frozen=True)
class WorkingPoints:
    """Thresholds of the six species.

    Attributes:
        rule: what they were chosen for.
        overall: species → its threshold; NaN for a species that is absent.
        bins: species → a choice per bin of ``rule.pt_edges``, None where there are too few tracks; empty without bins.
    """

    rule: Thresholds
    overall: Mapping[str, Choice]
    bins: Mapping[str, Sequence[Choice | None]] = field(default_factory=dict)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """The overall thresholds, (6,)."""
        return np.array([self.overall[name].threshold for name in species.TARGET_NAMES])

    def at(self, pt: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the threshold of each track and species, float32 (tracks, 6), at transverse momenta in GeV/c."""
        return at_pt(self.thresholds, self.table(), pt)

    def table(self) -> dict[str, Any] | None:
        """Return the content of ``thresholds_pt.json``, None without bins."""
        if not self.bins:
            return None
        values = {
            name: [(each or self.overall[name]).threshold for each in self.bins[name]] for name in species.TARGET_NAMES
        }
        return {"pt_edges": list(self.rule.pt_edges), "unit": "GeV/c", "thresholds": values}

    def record(self) -> dict[str, Any]:
        """Return the rule and what was reached, as plain data."""
        return {
            "mode": self.rule.mode,
            "target": None if self.rule.mode == "f1" else self.rule.target,
            "per_pt": bool(self.bins),
            "species": {name: asdict(each) for name, each in self.overall.items()},
        }

    def notices(self) -> list[str]:
        """Say which targets are not reached, and what is reached instead."""
        lines, mode, target = [], self.rule.mode, self.rule.target
        for name, each in self.overall.items():
            if not each.met:
                lines.append(f"{name}: no threshold has {mode} {target:g} on the validation sample; the best is "
                             f"{each.reached:.4f}, which is taken")  # fmt: skip
        for name, choices in self.bins.items():
            short = [index for index, each in enumerate(choices) if each is not None and not each.met]
            if short:
                edges = self.rule.pt_edges
                where = ", ".join(f"{edges[index]:g}–{edges[index + 1]:g}" for index in short)
                lines.append(f"{name}: no threshold has {mode} {target:g} at pT {where} GeV/c; the best is taken there")
        return lines


def at_pt(
    overall: NDArray[np.float64], table: Mapping[str, Any] | None, pt: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the threshold of each track and species, float32 (tracks, 6).

    Args:
        overall: thresholds, (6,), for tracks outside the bins.
        table: the content of ``thresholds_pt.json``, or None.
        pt: transverse momenta, GeV/c, (tracks,).
    """
    result = np.tile(overall.astype(np.float32), (len(pt), 1))
    if table is not None:
        edges = np.asarray(table["pt_edges"], np.float64)
        index = np.searchsorted(edges, np.asarray(pt, np.float64), side="right") - 1
        inside = (index >= 0) & (index < len(edges) - 1)
        values = np.array([table["thresholds"][name] for name in species.TARGET_NAMES], np.float32).T
        result[inside] = values[index[inside]]
    return result


def chosen(rule: Thresholds, sample: Split, scores: NDArray[np.float32]) -> WorkingPoints:
    """Choose thresholds on the first tracks of a sample, and say in the log which targets are not reached.

    Args:
        rule: what to choose them for.
        sample: labelled tracks; ``fPt`` is needed for bins.
        scores: certainties, float32 (tracks, 6), of its first tracks.
    """
    pdg = np.asarray(sample.pdg[: len(scores)])
    overall: dict[str, Choice] = {}
    bins: dict[str, list[Choice | None]] = {}
    index = None
    if rule.per_pt:
        pt = np.asarray(sample.column("fPt")[: len(scores)], np.float64)
        index = np.searchsorted(np.asarray(rule.pt_edges), pt, side="right") - 1
    for position, target in enumerate(species.TARGETS):
        truth, own = pdg == target.pdg, np.ascontiguousarray(scores[:, position])
        overall[target.name] = choose(rule, truth, own) if truth.any() else _UNDEFINED
        if index is None:
            continue
        members = [np.flatnonzero(index == each) for each in range(len(rule.pt_edges) - 1)]
        bins[target.name] = [
            choose(rule, truth[rows], own[rows]) if truth[rows].sum() >= _FEWEST else None for rows in members
        ]
    points = WorkingPoints(rule, overall, bins)
    for line in points.notices():
        _log.warning("%s", line)
    return points


def read_working_points(folders: Sequence[Path], prepared: PreparedDataset, rule: Thresholds) -> WorkingPoints:
    """Choose thresholds from the certainties that training outputs hold, as :func:`chosen` does.

    Raises:
        CorruptFile: certainties are absent, damaged or of another sample, or a species has none.
    """
    from pidml.training.classifier import read_species

    validation = prepared.split("validation")
    columns: dict[str, NDArray[np.float32]] = {}
    for folder in map(Path, folders):
        path, names = folder / CERTAINTY_FILE, read_species(folder)
        try:
            table = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{path}: no certainties: {error}", "remove the directory and rerun Train") from error
        if table.ndim != 2 or table.shape[1] != len(names) or not 0 < len(table) <= len(validation):
            raise CorruptFile(f"{path}: certainties of shape {table.shape} do not fit the sample", "rerun Train")
        columns |= {name: table[:, index] for index, name in enumerate(names)}
    if lacking := [name for name in species.TARGET_NAMES if name not in columns]:
        raise CorruptFile(f"no certainties for {', '.join(lacking)} in {', '.join(map(str, folders))}", "rerun Train")
    return chosen(rule, validation, np.stack([columns[name] for name in species.TARGET_NAMES], axis=1))
