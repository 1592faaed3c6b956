"""Who may use how much of the pool, and who used what: groups, quotas, reservations, the ledger."""
