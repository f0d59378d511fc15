"""The store driver against a real API server: what it promises, what it costs, and what it does about each failure."""
