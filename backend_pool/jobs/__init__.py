"""Durable jobs: rows and who may change them, queries, history, the lease on giving jobs out."""
