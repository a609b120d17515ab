"""What can be wrong with the database itself.

RuntimeError
├── DatabaseClosed   it was not opened, or is closed
└── DatabaseInUse    another process has the SQLite file

What drivers raise otherwise comes out as it is; `is_full` knows the one error that callers can wait out.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError

__all__ = ["DatabaseClosed", "DatabaseInUse", "is_full"]

# disk_full
_SQLSTATE_FULL = "53100"


class DatabaseClosed(RuntimeError):
    """The database was not opened yet, or is closed or closing; the unit of work was not begun."""


class DatabaseInUse(RuntimeError):
    """Another process has this SQLite database: with SQLite, one machine is exactly one node."""


def is_full(error: BaseException) -> bool:
    """Whether the database's disk has no room: nothing of the unit of work is left, and the same works with room."""
    raised = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(raised, sqlite3.Error):
        return getattr(raised, "sqlite_errorcode", None) in (
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR_SHMSIZE,
        )
    return getattr(raised, "sqlstate", None) == _SQLSTATE_FULL
