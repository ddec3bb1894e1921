"""Training of particle-identification networks for ALICE: the library.

Nothing in this package knows of law or luigi: the tasks in ``tasks`` and ``pipelines`` call it, never the reverse.
"""

from __future__ import annotations

import os

# Read when torch loads OpenMP: threads that spin while they wait for each other starve on a machine that also does
# other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
