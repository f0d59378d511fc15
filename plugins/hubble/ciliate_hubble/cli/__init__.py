"""`ciliate hubble`: flows at the command line, as Hubble's users know them.

Here belong flags and what request they make, how a flow is printed, and finding a server. What a filter means is the
server's business: a value that only a server can judge is sent as it is, and refused there. grpc and protobuf are
imported when a command runs, never for its help.
"""
