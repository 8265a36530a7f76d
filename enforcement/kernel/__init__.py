"""The raw wall: system calls, netlink, BPF. Nothing here decides anything."""
