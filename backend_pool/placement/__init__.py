"""Who is next and where: a pure model of the line in front of the backends. No clock, no I/O (docs/scheduling.md)."""
