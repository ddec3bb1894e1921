"""Producers of track tables from AO2D files."""
