"""Custom resource definitions on a real API server."""
