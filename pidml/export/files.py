"""Names of the files in a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from pidml.species import TARGETS

#: All certainties at once.
JOINT = "pid.onnx"
MANIFEST = "manifest.json"
COLUMNS_FILE, SCALING_FILE, THRESHOLDS_FILE = "columns_for_training.json", "scaling_params.json", "thresholds.json"
#: Only there if thresholds depend on transverse momentum.
THRESHOLDS_PT_FILE = "thresholds_pt.json"


def weights_name(species: Sequence[str]) -> str:
    """Return the name of the file with trained weights: of the only network, or of one of several.

    >>> weights_name(["kaon"])
    'model_kaon.pt'
    """
    return "model.pt" if len(species) == len(TARGETS) else f"model_{'_'.join(species)}.pt"


def o2_name(species: str) -> str:
    """Return the file name under which O2Physics looks for a species' network.

    >>> o2_name("antikaon")
    'attention_model_0321.onnx'
    """
    code = next(target.o2_code for target in TARGETS if target.name == species)
    return f"attention_model_{code}.onnx"
