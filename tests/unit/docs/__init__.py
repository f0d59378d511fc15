"""What docs/ says is what the code has."""
