"""Durable jobs: their states, rows, queries and history."""
