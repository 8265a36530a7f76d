"""Read the environment and memory maps of other processes.

gain: credentials that stand in environments
attack: T1552.001
stopped by: pid namespace, ptrace check
unconfined: host
also refused by: ENOENT
"""

from attacker import Refused, each, first


def attempt(world):
    def look(pid):
        with open(f"/proc/{pid}/environ") as file:
            text = file.read()
        if "VICTIM_SECRET" in text:
            return f"read the environment of process {pid}, {text.count(chr(0))} variables"
        raise Refused(f"the environment of process {pid} holds nothing")

    return first(*each(world["pids"], look))
