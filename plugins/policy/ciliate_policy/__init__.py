"""Policy: identities, selectors, rules to policy-map entries, explain.

Here belongs what decides who may talk to whom: reading of policy objects, security identities, the merge of everybody's
claims into the ipcache, and what the kernel's maps `policy`, `ipcache` and `endpoint_policy` hold. Not here: making
endpoints (cni), addresses (ipam), names (dns), what a request may say (l7_envoy).

The modules `labels` to `engine` are pure: no map, no store, no loop. `realise` and `plugin` connect them to the node.
"""
