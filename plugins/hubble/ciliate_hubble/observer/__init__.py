"""The service observer.Observer: where reading begins and ends, and what each method answers.

Here belongs the meaning of requests but for their filters (filters/). Not here: how flows come to be (ingest/), how
they look on the wire (encoding/), the server (server.py).
"""
