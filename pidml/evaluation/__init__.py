"""How well a selection of species works: counts, metrics with intervals, baselines, and the benchmark."""
