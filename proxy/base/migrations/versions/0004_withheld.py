"""Which API tokens came with a job: a server that was restarted no longer has them, and must not run it without."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("job_documents", sa.Column("withheld", sa.JSON(), nullable=False, server_default="[]"))
