"""Takes part in a training as other processes do, but asks once for more memory than there can be."""

from __future__ import annotations

from typing import Any

import torch

from pidml.training import processes
from pidml.training.module import TrainingModule


def main() -> None:
    """Run out of memory in the second epoch, as long as batches are taken whole."""
    original = TrainingModule.training_step

    def step(self: TrainingModule, batch: Any, index: int) -> Any:
        if self.current_epoch == 1 and index == 5 and self.parts == self.trainer.world_size:
            torch.empty(2**50)
        return original(self, batch, index)

    TrainingModule.training_step = step  # type: ignore[method-assign]
    processes.main()
