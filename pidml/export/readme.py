"""The explanation that lies in every bundle."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_TEXT = """\
Networks for particle identification: {architecture}, written by pidml {pidml}
{line}

pion.onnx … antiproton.onnx   one network per species: float32 (batch, {count}) in, certainty (batch, 1) out
attention_model_211.onnx …    the same files under the names that O2Physics looks for (a leading 0 stands for minus)
pid.onnx                      all six certainties at once, (batch, 6), in the order of the table below
columns_for_training.json     features, in the order of the input's columns
scaling_params.json           mean and standard deviation of the features that are standardised; others enter raw
thresholds.json               certainty from which a track is accepted, chosen on validation tracks of all momenta for
                              {overall}
{per_pt}model.pt or model_*.pt        trained weights for pidml, to train on from (training.warm_start)
manifest.json                 SHA-256 and size of every file, and the facts on this page for programs

Operator set {opset}, IR version {ir_version}. Any value may be NaN (missing), in any mixture within a batch.

Input
-----
Features: {features}
Each standardised feature enters as (value − mean) / standard deviation.
Missing, that is NaN: fTRDSignal and fTRDPattern without TRD (pattern 0) or below p = {trd} GeV/c; fTOFSignal and fBeta
without TOF or below p = {tof} GeV/c. The networks were trained under this rule, and O2Physics applies it by itself
if its momentum limits are the same.

Training
--------
{tracks_trained:,} tracks:

{patterns}
{untaught}
Output
------
A certainty in [0, 1]. Accept a track when it is at or above the threshold{table_is}:

{table}
{notices}
On {tracks} validation tracks, onnxruntime and the trained network differ by at most {difference:.1e}.

In Python
---------
    import json
    import numpy as np
    import onnxruntime

    names = json.load(open("columns_for_training.json"))["columns_for_training"]
    scaling = {{name: (mean, std) for name, mean, std in json.load(open("scaling_params.json"))["data"]}}
    session = onnxruntime.InferenceSession("pid.onnx")

    def certainties(columns):  # columns: name → float32 array, NaN where missing, limits applied as above
        scaled = [(columns[n] - scaling[n][0]) / scaling[n][1] if n in scaling else columns[n] for n in names]
        return session.run(None, {{"{input}": np.stack(scaled, axis=1).astype(np.float32)}})[0]

or, with all rules applied and every file verified: pidml.export.Bundle.open(".").predict_columns(columns)

In O2Physics
------------
Put this directory where the task finds it and set, for a PidONNXModel or the PIDML interface: the local path to this
directory, the PDG code of the species, and as minimum certainty the threshold from the table (the default is 0.5).
"""


_PER_PT = (
    "thresholds_pt.json            the same where transverse momentum is known:\n"
    "                              {rule};\n"
    '                              the other bins (not "own") and tracks outside have one threshold together\n'
)
_UNMET = " as far as the notes below say"
_TABLE_PER_PT = " of its transverse momentum\n(thresholds_pt.json) or, at all momenta alike"


def _patterns(training: Mapping[str, Any]) -> str:
    """Return a line for each mixture of detectors, with what becomes of those that were not learned."""
    lines = []
    for name, number in training["patterns"].items():
        line = f"    {name:<15}{number:>14,}"
        if name in training["answered_as"]:
            other = training["answered_as"][name]
            line += f"   too few to learn from: {f'answered as {other}' if other else 'certainties mean little'}"
        lines.append(line)
    return "\n".join(lines)


def _notes(lines: Sequence[str]) -> str:
    return "".join(f"\n{textwrap.fill(f'Note: {line}.', 118)}\n" for line in lines)


def readme(facts: Mapping[str, Any]) -> str:
    """Return the text for the facts that the manifest holds."""
    rows = [f"    {'species':<12}{'PDG':>6}  {'O2Physics file':<28}threshold"]
    rows += [
        f"    {each['name']:<12}{each['pdg']:>6}  {each['o2_file']:<28}{each['threshold']:.4f}"
        for each in facts["species"]
    ]
    choice = facts["threshold_choice"]
    title = f"Networks for particle identification: {facts['architecture']}, written by pidml "
    return _TEXT.format(
        line="=" * (len(title) + len(facts["pidml"])),
        count=len(facts["features"]),
        table="\n".join(rows),
        tracks_trained=facts["training"]["tracks"],
        patterns=_patterns(facts["training"]),
        untaught=_notes(facts["training"]["notices"]),
        tracks=facts["check"]["tracks"],
        difference=facts["check"]["largest_difference"],
        tof=facts["momentum_limits"]["tof"],
        trd=facts["momentum_limits"]["trd"],
        input="features",
        overall=choice["overall_rule"] + ("" if all(each["met"] for each in choice["species"].values()) else _UNMET),
        per_pt=_PER_PT.format(rule=choice["rule"]) if choice["per_pt"] else "",
        table_is=_TABLE_PER_PT if choice["per_pt"] else "",
        notices=_notes(choice["notices"]),
        **{key: facts[key] for key in ("architecture", "pidml", "opset", "ir_version")},
        features=" ".join(facts["features"]),
    )
