"""The event bus: what is published meets who waits for it, in either order."""
