"""Who may come in: accounts, passwords, logins, tokens, and the one place where credentials become an identity."""
