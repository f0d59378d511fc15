"""Tests of what an interface promises, to be run against each of its drivers. Nothing here is collected by itself."""
