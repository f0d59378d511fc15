"""The policy engine: manifests in, verdicts out. No kernel, no store."""
