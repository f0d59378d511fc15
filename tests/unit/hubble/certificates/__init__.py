"""Certificates: made, renewed, rotated, picked up, and refused."""
