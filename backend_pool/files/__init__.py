"""Files of users and jobs: their names, their way to a backend and home again."""
