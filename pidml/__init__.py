"""Training of particle-identification networks for ALICE: the library.

Nothing in this package knows of law or luigi; the tasks in ``tasks`` and ``pipelines`` call it, never the other way round.
"""

from __future__ import annotations

__version__ = "0.1.0"
