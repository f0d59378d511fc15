"""Hubble's API: .proto files, and what `make proto` makes of them. Nothing else belongs here."""
