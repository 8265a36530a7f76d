"""The agents' only way out: decides each request by policy, and proxies what it allows."""
