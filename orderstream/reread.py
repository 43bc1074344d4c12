"""A file that is read again when it changes; one that broke keeps its last good content in force.

Law: a rotation needs no restart, and a slip of the pen no outage. Reason: secrets change while orders come.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from orderstream.errors import BadFile

T = TypeVar("T")

log = logging.getLogger("orderstream.reread")


class Reread(Generic[T]):
    """What `read` makes of a file. read: raises BadFile. Made with a file that cannot be read it raises, with the user watching."""

    def __init__(self, file: Path, read: Callable[[Path], T]) -> None:
        self._file = file
        self._read = read
        self._seen = _stamp(file)
        self._good = read(file)

    def __call__(self) -> T:
        """The content in force."""
        if _stamp(self._file) != self._seen:
            self.again()
        return self._good

    def again(self) -> bool:
        """Reads it now; False where it cannot be read."""
        self._seen = _stamp(self._file)
        try:
            self._good = self._read(self._file)
        except BadFile as error:
            log.warning("the last good one stays in force: %s", error.sentence)
            return False
        return True


def _stamp(file: Path) -> tuple[int, int, int]:
    """Differs when the file does; the inode, because two files of one size may be renamed into place within a clock's tick."""
    try:
        status = file.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
