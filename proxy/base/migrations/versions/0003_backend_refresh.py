"""When an operator asked to have a backend's nodes and models read again: a running server sees that it has changed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("backends", sa.Column("refresh_ms", sa.BigInteger(), nullable=False, server_default="0"))
