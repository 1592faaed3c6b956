"""The JSON API under /cluster/api/v1."""
