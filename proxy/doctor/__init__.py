"""`comfy-cluster doctor`: what this machine offers and what stands in the way."""
