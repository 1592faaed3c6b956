"""A pack that cannot be imported."""

raise RuntimeError("broken_at_import: its library is missing")
