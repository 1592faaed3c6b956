"""Alembic's entry: runs the version scripts on the connection that `schema.upgrade` passes."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
