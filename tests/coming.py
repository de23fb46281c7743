"""Migrations that are still to come."""

from graphql_api.storage import migrate

INDEXES = "from graphql_api.storage.migrations.indexes import create_index"


class Coming:
    """A folder of the migrations that there are, to which others are added."""

    def __init__(self, folder):
        self.folder = folder
        self._last = migrate.newest_revision()
        self._count = 0

    def add(self, *statements, sleeps=0, concurrently=(), index=()):
        """A migration that runs these in a transaction, sleeps in it, runs those each on its own, builds an index."""
        self._count += 1
        revision = f"9{self._count:03}"
        lines = [f"    op.execute({statement!r})" for statement in statements]
        lines.append(f"    time.sleep({sleeps})")
        if concurrently:
            lines.append("    with op.get_context().autocommit_block():")
            lines += [f"        op.execute({statement!r})" for statement in concurrently]
        if index:
            lines.append(f"    create_index(*{index!r})")
        chain = f"revision, down_revision = {revision!r}, {self._last!r}"
        text = "\n".join(["import time", "from alembic import op", INDEXES, chain, "def upgrade():", *lines, ""])
        (self.folder / f"{revision}_to_come.py").write_text(text)
        self._last = revision

    def take_back(self):
        """Forget the one that was added last."""
        (self.folder / f"{self._last}_to_come.py").unlink()
        self._count -= 1
        self._last = f"9{self._count:03}" if self._count else migrate.newest_revision()
