"""What pages and API show, read from the rows and the pool."""
