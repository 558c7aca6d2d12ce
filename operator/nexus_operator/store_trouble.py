"""What a disk can do to the store, each kind with the line that says what to do.

Promises that every error of SQLite and of the file system becomes one `StoreProblem`. What follows
from it is `store_keeper`'s.
"""

from __future__ import annotations

import enum
import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus_operator.store_schema import OtherVersion
from nexus_quality.saved import InvalidRow


class Trouble(enum.Enum):
    """What is wrong; the value says what to do."""

    CORRUPT = "it is moved aside and begun anew"
    VERSION = "move the file away to begin anew, or run the version that wrote it"
    LOCKED = "stop the other process that has it open, or give each a folder of its own"
    FULL = "make room on the disk"
    READ_ONLY = "let this process write to the folder of --data-dir"
    DISK = "look at the disk of --data-dir"


class StoreProblem(Exception):
    """The store cannot be used now. The text is one line; `short` is what is wrong alone."""

    def __init__(self, trouble: Trouble, path: Path, detail: object) -> None:
        super().__init__(f"the store {path} cannot be used: {detail}: {trouble.value}")
        self.trouble = trouble
        self.short = str(detail)


@contextmanager
def watched(path: Path) -> Iterator[None]:
    """Whatever goes wrong is a StoreProblem."""
    try:
        yield
    except OtherVersion as error:
        raise StoreProblem(Trouble.VERSION, path, error) from None
    except InvalidRow as error:
        raise StoreProblem(Trouble.CORRUPT, path, error) from None
    except sqlite3.Error as error:
        raise StoreProblem(trouble_of(error), path, error) from None
    except OSError as error:
        closed = isinstance(error, PermissionError) or error.errno in _READ_ONLY_ERRNO
        trouble = Trouble.READ_ONLY if closed else Trouble.DISK
        raise StoreProblem(trouble, path, error.strerror or error) from None


_READ_ONLY_ERRNO = frozenset({errno.EROFS, errno.EPERM})
_TROUBLES = {
    sqlite3.SQLITE_CORRUPT: Trouble.CORRUPT,
    sqlite3.SQLITE_NOTADB: Trouble.CORRUPT,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Trouble.READ_ONLY,
    sqlite3.SQLITE_PERM: Trouble.READ_ONLY,
}


def trouble_of(error: sqlite3.Error) -> Trouble:
    """What an error of SQLite means."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by our own checks
        return Trouble.CORRUPT if isinstance(error, sqlite3.DatabaseError) else Trouble.DISK
    return _TROUBLES.get(code & 0xFF, Trouble.DISK)
