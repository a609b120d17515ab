"""How a database of any earlier shape becomes one of today's."""

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

__all__ = ["upgrade"]


def upgrade(connection: Connection) -> None:
    """Brings the database to the newest shape, inside the connection's transaction: all of it or nothing."""
    config = Config()
    config.set_main_option("script_location", "roomtape_service.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
