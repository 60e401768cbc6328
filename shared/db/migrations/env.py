"""Run by Alembic. The connection, and the transaction that all migrations are one of, come from shared.db.schema."""

from alembic import context

from shared.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=False,  # the caller's transaction is the one
)
context.run_migrations()
