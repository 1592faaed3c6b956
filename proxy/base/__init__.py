"""What every package may import: settings, errors, database, tasks, logs, clock, names. Imports nothing else of ours."""
