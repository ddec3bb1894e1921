"""Courses of the learning rate, as a factor on the initial (for one-cycle: the largest) one."""

from __future__ import annotations

import math
from collections.abc import Callable

from pidml.spec.model_sections import Training

#: Part of a one-cycle training in which the learning rate rises, and where it starts and ends relative to its peak.
_RISE, _START, _END = 0.1, 0.04, 1e-4
_POLYNOMIAL_POWER = 2.0


def learning_rate_factor(training: Training, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the function from the number of optimiser steps taken to the factor on ``training.learning_rate``."""
    total = max(1, training.max_epochs * steps_per_epoch)

    def exponential(step: int) -> float:
        return float(training.gamma ** (step // steps_per_epoch))

    def cosine(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    def one_cycle(step: int) -> float:
        done = min(1.0, step / total)
        if done < _RISE:
            return _START + (1 - _START) * 0.5 * (1 - math.cos(math.pi * done / _RISE))
        return _END + (1 - _END) * 0.5 * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE)))

    def polynomial(step: int) -> float:
        return float((1 - min(1.0, step / total)) ** _POLYNOMIAL_POWER)

    courses: dict[str, Callable[[int], float]] = {
        "exponential": exponential,
        "cosine": cosine,
        "one-cycle": one_cycle,
        "polynomial": polynomial,
        "constant": lambda _: 1.0,
    }
    return courses[training.schedule]
