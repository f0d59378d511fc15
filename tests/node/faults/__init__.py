"""Fault tests: something breaks under traffic, and what is allowed stays allowed, what is denied stays denied.

Here belong faults and what measures them: the steady traffic (`steady`), pods that come and go (`churn`), random kills
(`kills`), and the inventory that finds what is leaked (`inventory`). What works without faults is tested elsewhere.
"""
