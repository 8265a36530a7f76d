"""The core process of a host: sandboxes and quarantine behind one Unix socket, and the client to it."""
