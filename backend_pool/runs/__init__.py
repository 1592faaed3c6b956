"""One job at one backend: attempts, the two ways of its files, what is relayed, how it ends, and after failures."""
