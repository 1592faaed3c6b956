"""What every package may import: settings, errors, database, tasks, logs. Imports nothing else of ours."""
