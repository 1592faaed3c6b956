"""`comfy-cluster bench`: what an installation costs, and what ways of placing make of a load."""
