"""Who may change a verdict: signed bundles, trusted keys, and seals of cached files that are code."""
