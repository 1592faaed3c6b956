"""Backends as this proxy knows them: rows, members, health, their API, and what is done to them while time passes."""
