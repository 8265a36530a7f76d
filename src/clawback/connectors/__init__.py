"""What implements `clawback.world`: Vault, AWS, the secret store, tickets.

One file each; each imports its library when it is first used, so that containing an agent waits for none of them.
"""
