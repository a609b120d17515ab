"""Alembic's entry: runs the migrations on the connection that `upgrade` was given."""

from alembic import context

from roomtape_service.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll DDL back as well; the caller's transaction holds all of it.
    transactional_ddl=True,
)
context.run_migrations()
