"""The relay: its merge, its connections, and what readers of it see."""
