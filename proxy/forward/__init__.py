"""The data plane: requests and WebSockets to sessions, byte for byte."""
