"""Track tables written for tests, with what is in them known."""

import numpy as np
import uproot

from pidml import tracks


def make_columns(n, seed=0, simulation=True):
    """Plausible tracks: all columns of the training table, missing values as NaN and TRD pattern 0."""
    rng = np.random.default_rng(seed)
    pt, eta, phi = rng.gamma(2, 0.5, n) + 0.1, rng.uniform(-0.8, 0.8, n), rng.uniform(-np.pi, np.pi, n)
    no_tof, no_trd = rng.random(n) < 0.4, rng.random(n) < 0.3
    values = {
        "fTPCSignal": rng.gamma(10, 6, n) + 1,
        "fTRDSignal": np.where(no_trd, np.nan, rng.gamma(3, 1, n)),
        "fTRDPattern": np.where(no_trd, 0, rng.integers(1, 64, n)),
        "fTOFSignal": np.where(no_tof, np.nan, rng.normal(20000, 4000, n)),
        "fBeta": np.where(no_tof, np.nan, rng.uniform(0.4, 1.05, n)),
        "fP": pt * np.cosh(eta),
        "fPt": pt,
        "fPx": pt * np.cos(phi),
        "fPy": pt * np.sin(phi),
        "fPz": pt * np.sinh(eta),
        "fSign": rng.choice([-1, 1], n),
        "fX": rng.normal(0, 1, n),
        "fY": rng.normal(0, 1, n),
        "fZ": rng.normal(0, 6, n),
        "fAlpha": phi,
        "fTrackType": np.zeros(n),
        "fTPCNClsShared": rng.integers(0, 20, n),
        "fDcaXY": rng.normal(0, 0.02, n),
        "fDcaZ": rng.normal(0, 0.05, n),
        "fPdgCode": rng.choice([211, -211, 321, -321, 2212, -2212, 11, -13, 1000010020], n),
        "fIsPhysicalPrimary": rng.integers(0, 2, n),
    }
    columns = {name: np.asarray(values[name]).astype(tracks.COLUMNS[name].dtype) for name in values}
    return columns if simulation else {k: v for k, v in columns.items() if k not in tracks.TRUTH_COLUMNS}


def write_tables(path, frames, tree="O2pidtracksmcml", baskets=1, others=()):
    """Write ``{"DF_1": columns, …}`` as track tables; ``others`` are keys of plain objects beside them."""
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        for name in others:
            file[name] = "an object that is no table"
        for frame, columns in frames.items():
            name = f"{frame}/{tree}"
            file.mktree(name, {key: value.dtype for key, value in columns.items()})
            for part in np.array_split(np.arange(len(next(iter(columns.values())))), baskets):
                file[name].extend({key: value[part] for key, value in columns.items()})
    return path


def write_trees(path, trees):
    """Write ``[("DF_1/O2track", columns), …]`` as trees."""
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        for name, columns in trees:
            flat = {key: value for key, value in columns.items() if isinstance(value, np.ndarray)}
            file.mktree(name, {key: np.dtype((value.dtype, value.shape[1:])) for key, value in flat.items()})
            file[name].extend(flat)
    return path


def write_raw(path, frames):
    """Write ``{"DF_1": {"O2track_iu": columns, …}, …}`` as AO2D tables, without columns of lists."""
    return write_trees(path, [(f"{frame}/{name}", c) for frame, tables in frames.items() for name, c in tables.items()])


def old_encoding(columns):
    """The same tracks as older files encode them: −999 for missing TOF."""
    changed = dict(columns)
    for name in ("fTOFSignal", "fBeta"):
        changed[name] = np.where(np.isnan(columns[name]), np.float32(-999), columns[name])
    return changed


def flip_bytes(path, start, count=1):
    data = bytearray(path.read_bytes())
    for index in range(start, start + count):
        data[index] ^= 0xFF
    path.write_bytes(data)
