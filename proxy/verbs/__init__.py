"""The verbs of `comfy-cluster`, by what they are about."""
