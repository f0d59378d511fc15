"""Writes every denied flow to a file, as a line of JSON. What is denied, the data path and its policy decide."""
