"""``open_local``: an archive on a disk."""

from __future__ import annotations

import io
import os
from io import FileIO
from typing import Any, BinaryIO

from qscore_fast.images.bad_file import patiently


def open_local(name: str) -> BinaryIO:
    """A seekable stream over a local file; reads are tried again while the disk fails.

    Raises:
        BadFileError: it cannot be opened, or while it is read a place in it cannot, and its disk can: that is
            damage, as a file that breaks off is.
        OSError: as the operating system says.
    """
    return io.BufferedReader(_PatientFile(name))


class _PatientFile(io.RawIOBase):
    """A file whose reads are tried again from the same place."""

    def __init__(self, name: str) -> None:
        self._path = os.fsencode(name)
        self._file = patiently(lambda: FileIO(name), self._path)

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()

        def read() -> int:
            self._file.seek(start)
            return self._file.readinto(buffer) or 0

        return patiently(read, self._path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
