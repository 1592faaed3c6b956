"""Files of users and jobs: their names in prompts and outputs, their way to a backend and home again."""
