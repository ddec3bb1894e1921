"""Figures: one style, one colour per species, no global state of Matplotlib touched."""
