"""The test sample of data whose species are known."""

from __future__ import annotations

from pidml.data.prepared import PreparedDataset, Split
from pidml.errors import MissingColumn, NoLabels, NoTracks


def labelled_test(prepared: PreparedDataset) -> Split:
    """Return the test sample of simulated data.

    Raises:
        NoLabels: the data are experimental.
        MissingColumn: the sample has no transverse momentum.
        NoTracks: the sample is empty.
    """
    if not prepared.simulation:
        raise NoLabels(
            f"{prepared.path}: experimental data have no labels (no fPdgCode): purity and efficiency cannot be counted",
            "use simulation",
        )
    test = prepared.split("test")
    if not len(test):
        raise NoTracks(
            f"{prepared.path}: the test sample is empty", "raise preparation.test_fraction or loosen the cuts"
        )
    if "fPt" not in test.aux_names:
        raise MissingColumn(f"{prepared.path}: fPt is not among the aux columns", "rerun PrepareDataset")
    return test
