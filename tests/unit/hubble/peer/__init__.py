"""The peer service: replay, then changes."""
