"""``python -m pidml`` is the ``pidml`` command."""

from __future__ import annotations

from pidml.cli import main

if __name__ == "__main__":
    main()
