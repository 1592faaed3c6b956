"""Browsers' open WebSockets: what their user's jobs tell, and news of the cluster."""
