"""The relay in a lab of two nodes: what breaks under a reader that follows, and what the reader sees of it."""
