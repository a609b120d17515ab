"""The service's durable state: tables, the unit of work, and what is particular to SQLite and PostgreSQL."""

from roomtape_service.database.database import Database
from roomtape_service.database.errors import DatabaseClosed, DatabaseInUse
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["Database", "DatabaseClosed", "DatabaseInUse", "UnitOfWork"]
