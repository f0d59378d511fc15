"""Limits how many packets a second each pod may send. How a packet goes on, the data path decides."""
