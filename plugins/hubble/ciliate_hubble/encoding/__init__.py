"""Flows as the bytes of Hubble's messages, for those who get them and nobody else, out of parts that are encoded once.

Here belongs how rows look on the wire, and which of their fields are wanted. Not here: which rows (filters/), when
(observer/). What it writes is what protobuf's own serialiser would, byte for byte: a test compares them.
"""
