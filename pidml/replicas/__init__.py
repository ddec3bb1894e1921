"""Replicas of a training: how much of a result is due to the seed, and how much to the choice of training tracks."""
