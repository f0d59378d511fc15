"""The commands apply, delete and get.

Here belong reading manifests, merging them with what is stored, waiting until they are enforced, and showing objects.
Not here: what an object means, which the plugins say through `ciliate_review`; nor any store.
"""
