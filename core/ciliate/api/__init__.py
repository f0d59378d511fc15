"""The API of a process: routes over a Unix socket, for root.

Here belong the wire (length-prefixed msgpack frames), the server and the client. Not here: any route of a feature;
those are contributed by plugins.
"""
