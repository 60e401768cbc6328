"""Searches of the web: one file a provider, and the chain that asks them in turn."""
