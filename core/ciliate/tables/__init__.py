"""Tables: state that plugins read from each other, keyed, typed, observable and kept over restarts.

Here belong the rows in memory, their readers, and the file that keeps them. Not here: what any row means.
"""
