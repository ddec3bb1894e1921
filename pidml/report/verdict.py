"""What a benchmark says, in a few sentences."""

from __future__ import annotations

from typing import Any

#: Standard deviations from which on a difference is taken to be more than a fluctuation.
_SIGNIFICANT = 3.0


def verdict(tiles: list[dict[str, Any]]) -> str:
    """Return in a few sentences how the network compares with the optimum and the other selections.

    Args:
        tiles: per species ``symbol``; ``network``, ``nsigma``, ``bayes``: figures of merit, or None; ``ratio``: what
            ``fraction_of_optimum`` in ``metrics.json`` holds, or None.
    """
    parts = []
    known = [tile for tile in tiles if tile["ratio"] and tile["ratio"]["value"] is not None]
    if known:
        ratios = [tile["ratio"]["value"] for tile in known]
        parts.append(
            f"The network reaches {100 * min(ratios):.2f} % to {100 * max(ratios):.2f} % of the F1 that is possible at "
            "all on this simulation (the exact posterior)."
        )
        above = {tile["symbol"]: tile["ratio"]["significance"] for tile in known if tile["ratio"]["value"] > 1}
        parts += [_above(above)] if above else []
    for method, text in (("nsigma", "nσ"), ("bayes", "Bayesian")):
        pairs = [
            (tile["network"]["f1"], tile[method]["f1"])
            for tile in tiles
            if tile[method] and None not in (tile["network"]["f1"], tile[method]["f1"])
        ]
        if pairs:
            better = sum(network > other for network, other in pairs)
            who = "It" if parts else "The network"
            parts.append(f"{who} has a higher F1 than the {text} selection for {better} of {len(pairs)} species.")
    return " ".join(parts)


def _above(significances: dict[str, float]) -> str:
    """Say, of species whose F1 is above that of the optimum, whether that is more than a fluctuation."""
    names, most = ", ".join(significances), max(significances.values())
    if most < _SIGNIFICANT:
        return (
            f"More than 100 % ({names}, by at most {most:.1f} σ) is a statistical fluctuation: no classifier can be "
            "better, but thresholds are chosen, and F1 is counted, on finite samples."
        )
    return (
        f"More than 100 % ({names}, by up to {most:.1f} σ) is more than a fluctuation of the test tracks: thresholds "
        "of the optimum, chosen on a finite validation sample, cost it F1, or these tracks are not of the simulation "
        "that it is the optimum of."
    )
