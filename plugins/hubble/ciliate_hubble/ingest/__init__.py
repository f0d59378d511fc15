"""From the data path's records to flows: batches in, batches out, never an object a flow.

Here belongs what a record means in Hubble's terms and what it is joined with. Not here: keeping flows (ring.py),
serving them (observer/).
"""
