"""The demonstration behind `make demo`: a three-tier application, its policies, and an agent killed under traffic.

It uses the commands that users have and nothing else, checks all that it says, and fails where something is not as
promised.
"""
