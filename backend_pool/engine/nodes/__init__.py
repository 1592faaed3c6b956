"""The nodes of the embedded engine, by what they work on. `catalogue` collects them."""
