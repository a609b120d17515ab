"""What all tables have in common."""

from collections.abc import Mapping

from sqlalchemy import Index, MetaData, text

__all__ = ["metadata", "partial_index"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def partial_index(
    name: str,
    *columns: str,
    where: str,
    unique: bool = False,
    postgresql_ops: Mapping[str, str] | None = None,
) -> Index:
    """An index of the rows that meet a condition; SQLite takes it only for that very condition."""
    condition = text(where)
    return Index(
        name,
        *columns,
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
        postgresql_ops=postgresql_ops or {},
    )
