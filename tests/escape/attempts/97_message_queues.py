"""Open message queues of the host and of another agent.

gain: their data, and a channel
attack: T1559
stopped by: IPC namespace
unconfined: host
also refused by: ENOENT
"""

import os

from attacker import call, each, first


def attempt(world):
    def look(victim):
        call("mq_open", f"clawback-{victim['token']}".encode(), os.O_RDWR, 0, 0)
        return f"opened the queue of {victim['token']}"

    return first(*each([one for one in world["victims"] if "mq" in one], look))
