"""The size of each job's document, so that what one user stores can be bounded without reading it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

PARTS = ("prompt", "extra_data", "targets", "outputs", "meta", "messages", "files")


def upgrade() -> None:
    """Add the column and fill it."""
    op.add_column("jobs", sa.Column("document_size", sa.Integer(), nullable=False, server_default="0"))
    size = " + ".join(f"length(cast({part} as text))" for part in PARTS)
    op.execute(
        f"update jobs set document_size = coalesce("  # noqa: S608 - made of constants
        f"(select {size} from job_documents where job_documents.seq = jobs.seq), 0)"
    )
