"""The embedded GRID: files below one directory, served by their LFN with ranges and a checksum.

``GET`` or ``HEAD /grid/alice/sim/…`` gives the file ``alice/sim/…`` below the GRID directory, with ``Content-Length``,
``Accept-Ranges``, ``ETag`` and ``X-Checksum-Sha256`` (hexadecimal, of the whole file whatever range is asked for).
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pidml.identity import file_checksum
from pidml.server.database import Database

CHECKSUM_HEADER = "X-Checksum-Sha256"


class _GridFile(FileResponse):
    chunk_size = 1024 * 1024


class Grid:
    """Serves the files below ``grid_dir``; nothing else, also not through ``..`` or symbolic links."""

    def __init__(self, grid_dir: Path, database: Database) -> None:
        self.root = grid_dir.resolve()
        self.database = database
        self._computing = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the routes to serve."""
        return [Route("/grid/{lfn:path}", self.serve, methods=["GET", "HEAD"])]

    async def serve(self, request: Request) -> Response:
        """Answer with the file or a part of it: 200, 206, 400, 404 or 416."""
        path, status = await run_in_threadpool(self.find, str(request.path_params["lfn"]))
        checksum = await run_in_threadpool(self.checksum, path, status)
        headers = {CHECKSUM_HEADER: checksum}
        return _GridFile(path, headers=headers, media_type="application/octet-stream", stat_result=status)

    def find(self, lfn: str) -> tuple[Path, os.stat_result]:
        """Return the file of an LFN and its status, or refuse with 400 or 404."""
        parts = lfn.strip("/").split("/")
        if not lfn.isprintable() or any(part in ("", ".", "..") for part in parts):
            raise HTTPException(400, "the logical file name is malformed")
        try:
            path = self.root.joinpath(*parts).resolve(strict=True)
            status = path.stat()
        except (OSError, ValueError, RuntimeError):  # absent, too long, not permitted, a loop of links
            raise HTTPException(404, "there is no such file on this GRID") from None
        if not path.is_relative_to(self.root) or not stat.S_ISREG(status.st_mode):
            raise HTTPException(404, "there is no such file on this GRID")
        return path, status

    def size_of(self, lfn: str) -> int | None:
        """Return the size in bytes of a file on this GRID, ``None`` for anything else."""
        try:
            return self.find(lfn)[1].st_size
        except HTTPException:
            return None

    def checksum(self, path: Path, status: os.stat_result) -> str:
        """Return a file's SHA-256, computed once for each path, size and modification time."""
        known = self._known(path, status)
        if known is None:
            with self._computing:  # of several downloads of a new file only one reads it all
                known = self._known(path, status) or self._compute(path, status)
        return known

    def _known(self, path: Path, status: os.stat_result) -> str | None:
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT sha256 FROM grid_checksums WHERE path = ? AND size = ? AND mtime_ns = ?",
                (str(path), status.st_size, status.st_mtime_ns),
            ).fetchone()
        return None if row is None else str(row["sha256"])

    def _compute(self, path: Path, status: os.stat_result) -> str:
        sha256 = file_checksum(path)
        with self.database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO grid_checksums (path, size, mtime_ns, sha256) VALUES (?, ?, ?, ?)",
                (str(path), status.st_size, status.st_mtime_ns, sha256),
            )
        return sha256

    def logical_file_names(self, limit: int) -> list[tuple[str, int]]:
        """Return up to ``limit`` (LFN, size in bytes) of the ROOT files on this GRID, in order."""
        found: list[tuple[str, int]] = []
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(file for file in files if file.endswith(".root") and not file.startswith(".")):
                path = Path(folder, name)
                found.append(("/" + path.relative_to(self.root).as_posix(), path.stat().st_size))
                if len(found) == limit:
                    return found
        return found
