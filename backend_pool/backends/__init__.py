"""Backends as this proxy knows them: rows, members, health, and what is done to them while time passes."""
