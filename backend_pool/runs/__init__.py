"""One job at one backend: attempts, what is relayed of them, how they end, and what becomes of failed ones."""
