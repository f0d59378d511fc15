"""A file of lines that does not grow for ever: of what is older, one file of the same size is kept."""

import os
from pathlib import Path


class LineFile:
    """Opened for each write, so that whoever moves or removes it does no harm."""

    def __init__(self, path: Path, max_size: int) -> None:
        self.path, self._max_size = path, max_size

    def append(self, text: bytes) -> None:
        """Write all of it, or nothing. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size >= self._max_size:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        with self.path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                while text:
                    text = text[file.write(text) :]
            except OSError:
                file.truncate(before)
                raise

    def tail(self, count: int) -> list[bytes]:
        """The last lines, at most `count`, as far as the file's last 1 kB times `count` has them."""
        with self.path.open("rb") as file:
            start = file.seek(max(0, file.seek(0, os.SEEK_END) - 1000 * count))
            return file.read().splitlines()[1 if start else 0 :][-count:]
