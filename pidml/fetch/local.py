"""Files on local (or mounted) file systems: a hard link where possible, else a copy, never a symbolic link."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from pidml.atomic import temporary_sibling
from pidml.errors import DownloadError, InputMissing, PathRefused
from pidml.fetch.transfer import Request, Transfer, TransientError, require_space, require_stated_size


def transfer(request: Request) -> Transfer:
    """Link or copy a local file beside the destination.

    Raises:
        InputMissing: there is no such file.
        PathRefused: it is not a regular file, or lies outside the allowed folders once links are followed.
        DownloadError: it may not be read.
        ChecksumMismatch: its size is not the one that the job states.
        DiskFull: the disk cannot hold it.
        TransientError: reading or writing failed.
    """
    original = _resolve(request)
    status = original.stat()
    require_stated_size(request, status.st_size)
    copy = temporary_sibling(request.partial.destination)
    try:
        os.link(original, copy)
    except OSError:  # another file system, or links are not allowed there
        require_space(copy.parent, status.st_size, request.options.reserve, request.source.shown)
        try:
            shutil.copyfile(original, copy)
        except OSError as error:
            copy.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TransientError(str(error)) from error  # a network file system that does not answer, for example
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
    return Transfer(copy)


def _resolve(request: Request) -> Path:
    shown, roots = request.source.shown, request.source.roots
    try:
        path = Path(request.source.address).expanduser().resolve(strict=True)
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputMissing(f"there is no file {shown}", "check the path") from None
    except (OSError, RuntimeError) as error:
        raise DownloadError(f"{shown} cannot be reached: {error}", "check the path and who may read it") from error
    if roots is not None and not any(path.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise PathRefused(
            f"{shown} leads outside the folders that are open to this job",
            "the operator can name folders in PIDML_FILE_ROOTS (separated by ':')",
        )
    if not stat.S_ISREG(status.st_mode):
        raise PathRefused(f"{shown} is not a regular file", "name a file, not a folder or device")
    if not os.access(path, os.R_OK):
        raise DownloadError(f"{shown} may not be read by this user", "change its permissions, or run as its owner")
    return path
