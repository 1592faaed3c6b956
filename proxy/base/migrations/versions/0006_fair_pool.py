"""A fair pool: groups, what was used and by whom, reservations, learned times, and what jobs and backends ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables and columns."""
    _backends()
    _jobs()
    _groups()
    _books()
    _agents()


def _backends() -> None:
    op.add_column("backends", sa.Column("labels", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("backends", sa.Column("drain_by_ms", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("restart_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("backends", sa.Column("restarted_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("backends", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.add_column("backends", sa.Column("quarantine", sa.Text(), nullable=True))
    op.add_column("backends", sa.Column("quarantine_ms", sa.BigInteger(), nullable=True))


def _jobs() -> None:
    op.add_column("jobs", sa.Column("lane", sa.String(16), nullable=False, server_default="interactive"))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("labels", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("vram_mb", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("freed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("avoid", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("rendered_ms", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("load_ms", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("gpu_ms", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("jobs_by_turn", "jobs", ["state", "user_id", "lane", "priority", "number", "seq"])


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("running_limit", sa.Integer(), nullable=True),
        sa.Column("queue_limit", sa.Integer(), nullable=True),
        sa.Column("priority_limit", sa.Integer(), nullable=False),
        sa.Column("run_limit_s", sa.Float(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("quota_s", sa.Float(), nullable=True),
        sa.Column("quota_period", sa.String(16), nullable=False),
        sa.Column("quota_warn_percent", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "group_members",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("backends", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )


def _books() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_seq", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("group_name", sa.String(), nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("result", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("wait_ms", sa.BigInteger(), nullable=False),
        sa.Column("load_ms", sa.BigInteger(), nullable=False),
        sa.Column("run_ms", sa.BigInteger(), nullable=False),
        sa.Column("gpu_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_seq"),
    )
    op.create_index("ledger_by_day", "ledger", ["day", "user_id"])
    op.create_index("ledger_by_user", "ledger", ["user_id", "ended_ms"])
    op.create_table(
        "shares",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("virtual_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "user_choices",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "timings",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("mean_s", sa.Float(), nullable=False),
        sa.Column("spread_s", sa.Float(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )


def _agents() -> None:
    op.create_table(
        "agent_instances",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("backend_id", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["backend_id"], ["backends.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["token_id"], ["worker_tokens.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("backend_id"),
    )
