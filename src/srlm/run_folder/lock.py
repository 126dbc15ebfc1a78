"""One process on a run folder, also where the lock's file is deleted meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from srlm.errors import UserError

if sys.platform != "win32":
    import fcntl


class Lock:
    """Holds a folder, and knows whether it is still there.

    Two locks: ``.lock`` in the folder, by filelock; and on POSIX the folder itself, which nothing
    that is done to files in it can undo. Some network file systems do not lock folders; there the
    first one is all.

    Raises:
        UserError: another process holds it, or it cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = FileLock(folder / ".lock", timeout=0)
        self._held: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file.acquire()
            self._hold()
        except (Timeout, BlockingIOError):
            self.release()
            raise UserError(f"{folder}: in use by another process", "wait for it to end") from None
        except (NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"{folder}: cannot be made or written to: {error.strerror}", "give another --out"
            ) from None
        found = folder.stat()
        self._is = found.st_dev, found.st_ino

    def _hold(self) -> None:
        if sys.platform == "win32":
            return
        self._held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # this file system cannot
            os.close(self._held)
            self._held = None

    def release(self) -> None:
        """Let others in."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
        self._file.release()

    def there(self) -> bool:
        """Whether the folder is the one that was locked: not deleted, moved or replaced."""
        try:
            found = self.folder.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._is
