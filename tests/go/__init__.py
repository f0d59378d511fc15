"""Real programs written in Go that tests run against Ciliate: one folder a module, and what builds them.

A folder holds a go.mod and go.sum of ours, which pin what is required, and a tools.go, which imports what is built. No
Go of our own belongs here, and nothing of the modules' sources is read into ours.
"""
