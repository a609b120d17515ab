"""What can be wrong with the database itself.

RuntimeError
├── DatabaseClosed   it was not opened, or is closed
└── DatabaseInUse    another process has the SQLite file
"""

__all__ = ["DatabaseClosed", "DatabaseInUse"]


class DatabaseClosed(RuntimeError):
    """The database was not opened yet, or is closed or closing; the unit of work was not begun."""


class DatabaseInUse(RuntimeError):
    """Another process has this SQLite database: with SQLite, one machine is exactly one node."""
