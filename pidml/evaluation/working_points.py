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
from pidml.evaluation.counts import bin_index
from pidml.evaluation.thresholds import Choice, choose, reached_at
from pidml.spec.thresholds_section import FEWEST_IN_BIN, Thresholds

_log = logging.getLogger(__name__)

#: Certainties of the first validation tracks, written by training: float32 (tracks, species).
CERTAINTY_FILE = "validation_certainty.npy"
_UNDEFINED = Choice(float("nan"), float("nan"), True)


@dataclass(frozen=True)
class Remainder:
    """The threshold of a species in all bins with too few tracks of it, and outside the bins.

    Attributes:
        choice: what was chosen on these tracks together or, if they are too few too, the overall threshold, with what
            it reaches on these tracks.
        tracks: of the species, among these tracks.
        overall: whether it is the overall threshold.
        reached: index of each of these bins → F1, purity or efficiency there; NaN where undefined.
    """

    choice: Choice
    tracks: int
    overall: bool
    reached: Mapping[int, float]


@dataclass(frozen=True)
class WorkingPoints:
    """Thresholds of the six species.

    Attributes:
        rule: what they were chosen for.
        overall: species → its threshold; NaN for a species that is absent.
        bins: species → a choice per bin of ``rule.pt_edges``, None where there are too few tracks; empty without bins.
        remainders: species → the threshold where ``bins`` has None, and outside the bins.
    """

    rule: Thresholds
    overall: Mapping[str, Choice]
    bins: Mapping[str, Sequence[Choice | None]] = field(default_factory=dict)
    remainders: Mapping[str, Remainder] = field(default_factory=dict)

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
        rest = {name: self.remainders[name].choice for name in species.TARGET_NAMES}
        return {
            "pt_edges": list(self.rule.pt_edges),
            "unit": "GeV/c",
            "thresholds": {name: [(each or rest[name]).threshold for each in self.bins[name]] for name in rest},
            "own": {name: [each is not None for each in self.bins[name]] for name in rest},
            "outside": {name: each.threshold for name, each in rest.items()},
        }

    def record(self) -> dict[str, Any]:
        """Return the rule and what was reached, as plain data."""
        return {
            "mode": self.rule.mode,
            "target": None if self.rule.mode == "f1" else self.rule.target,
            "per_pt": bool(self.bins),
            "species": {name: asdict(each) for name, each in self.overall.items()},
            "bins": {name: self._bin_records(name) for name in self.bins},
            "outside": {name: asdict(each.choice) for name, each in self.remainders.items()},
        }

    def _bin_records(self, name: str) -> list[dict[str, Any]]:
        rest, edges = self.remainders[name], self.rule.pt_edges
        records = []
        for index, own in enumerate(self.bins[name]):
            each = own or _as_choice(self.rule, rest.choice.threshold, rest.reached[index])
            where = {"pt_low": edges[index], "pt_high": edges[index + 1]}
            records.append({**where, "own": own is not None, **asdict(each)})
        return records

    def notices(self) -> list[str]:
        """Say which targets are not reached, and which bins have no threshold of their own; what is reached instead."""
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
            lines += self._remainder_notices(name)
        return lines

    def _remainder_notices(self, name: str) -> list[str]:
        """Say which bins of a species have too few tracks of it; nothing of a species that is absent."""
        rest, figure = self.remainders[name], "F1" if self.rule.mode == "f1" else self.rule.mode
        if not rest.reached or np.isnan(rest.choice.threshold):
            return []
        edges = self.rule.pt_edges
        where = ", ".join(
            f"{edges[index]:g}–{edges[index + 1]:g} ({'undefined' if np.isnan(each) else f'{each:.4f}'})"
            for index, each in rest.reached.items()
        )
        text = f"{name}: fewer than {FEWEST_IN_BIN} tracks of the species at pT {where} GeV/c, each with its {figure}; "
        total = "" if np.isnan(rest.choice.reached) else f"; it has {figure} {rest.choice.reached:.4f} on these tracks"
        if rest.overall:
            count = f"{rest.tracks} of the species together"
            text += f"these and tracks outside the bins, {count}, have the threshold of all momenta{total}"
            return [text]
        short = "" if rest.choice.met else ", the best there is"
        return [f"{text}one threshold is chosen for these and tracks outside the bins together{total}{short}"]


def at_pt(
    overall: NDArray[np.float64], table: Mapping[str, Any] | None, pt: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the threshold of each track and species, float32 (tracks, 6).

    Args:
        overall: thresholds, (6,), that hold at all momenta.
        table: the content of ``thresholds_pt.json``, or None; one without ``outside`` leaves ``overall`` there.
        pt: transverse momenta, GeV/c, (tracks,).
    """
    result = np.tile(overall.astype(np.float32), (len(pt), 1))
    if table is not None:
        if "outside" in table:
            result[:] = np.array([table["outside"][name] for name in species.TARGET_NAMES], np.float32)
        edges = np.asarray(table["pt_edges"], np.float64)
        index = np.searchsorted(edges, np.asarray(pt, np.float64), side="right") - 1
        inside = (index >= 0) & (index < len(edges) - 1)
        values = np.array([table["thresholds"][name] for name in species.TARGET_NAMES], np.float32).T
        result[inside] = values[index[inside]]
    return result


def chosen(rule: Thresholds, sample: Split, scores: NDArray[np.float32]) -> WorkingPoints:
    """Choose thresholds on the first tracks of a sample, and say in the log what :meth:`WorkingPoints.notices` says.

    Args:
        rule: what to choose them for.
        sample: labelled tracks; ``fPt`` is needed for bins.
        scores: certainties, float32 (tracks, 6), of its first tracks.
    """
    pdg = np.asarray(sample.pdg[: len(scores)])
    overall: dict[str, Choice] = {}
    bins: dict[str, list[Choice | None]] = {}
    remainders: dict[str, Remainder] = {}
    index = bin_index(np.asarray(sample.column("fPt")[: len(scores)]), rule.pt_edges) if rule.per_pt else None
    for position, target in enumerate(species.TARGETS):
        truth, own = pdg == target.pdg, np.ascontiguousarray(scores[:, position])
        overall[target.name] = choose(rule, truth, own) if truth.any() else _UNDEFINED
        if index is None:
            continue
        members = [np.flatnonzero(index == each) for each in range(len(rule.pt_edges) - 1)]
        bins[target.name] = [
            choose(rule, truth[rows], own[rows]) if truth[rows].sum() >= FEWEST_IN_BIN else None for rows in members
        ]
        short = {each: members[each] for each, found in enumerate(bins[target.name]) if found is None}
        outside = np.flatnonzero(index == len(members))
        remainders[target.name] = _remainder(rule, truth, own, short, outside, overall[target.name].threshold)
    points = WorkingPoints(rule, overall, bins, remainders)
    for line in points.notices():
        _log.warning("%s", line)
    return points


def _remainder(
    rule: Thresholds, truth: NDArray[np.bool_], certainty: NDArray[np.float32],
    short: Mapping[int, NDArray[np.intp]], outside: NDArray[np.intp], overall: float,
) -> Remainder:  # fmt: skip
    """Choose the threshold of bins with too few tracks and of tracks outside the bins.

    Args:
        rule: what to choose it for.
        truth: whether each track is of the species, (tracks,).
        certainty: of all tracks, (tracks,).
        short: bins with too few tracks → their rows.
        outside: rows outside the bins.
        overall: the threshold for all momenta, taken where even these tracks together are too few.
    """
    rows = np.sort(np.concatenate([*short.values(), outside]))
    tracks = int(truth[rows].sum())
    few = tracks < FEWEST_IN_BIN
    if few:
        choice = _as_choice(rule, overall, reached_at(rule, truth[rows], certainty[rows], overall))
    else:
        choice = choose(rule, truth[rows], certainty[rows])
    each = {index: reached_at(rule, truth[mine], certainty[mine], choice.threshold) for index, mine in short.items()}
    return Remainder(choice, tracks, few, each)


def _as_choice(rule: Thresholds, threshold: float, reached: float) -> Choice:
    """Return a threshold chosen elsewhere with what it reaches here; undefined figures miss no target."""
    return Choice(threshold, reached, rule.mode == "f1" or not reached < rule.target)


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
