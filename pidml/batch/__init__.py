"""Batch systems without law: profiles of sites, what schedulers say about jobs, checks before anything is submitted."""
