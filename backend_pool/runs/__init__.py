"""One job at one backend: attempts, the two ways of its files, what is relayed, how it ends, what becomes of failed ones."""
