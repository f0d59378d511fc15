"""Where names come from: tables of the node's other plugins, and objects of the store.

Here belongs following them, and telling agent events of their changes. Not here: what is made of names (names.py).
"""
