"""``python -m pidml.server``: run the embedded server."""

from pidml.server.main import main

raise SystemExit(main())
