"""The lab, as far as it needs no root: names, manifests, statuses, records."""
