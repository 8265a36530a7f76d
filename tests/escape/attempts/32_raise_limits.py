"""Raise its own hard limits.

gain: more files, processes and core dumps than the policy gives
attack: T1499
stopped by: limits, capabilities
unconfined: host
"""

import resource

from attacker import each, first


def attempt(world):
    def up(name):
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (hard, hard + 1 if hard >= 0 else hard))
        except ValueError as error:  # what the module makes of EPERM
            raise PermissionError(1, str(error)) from None
        if hard < 0:
            return f"{name} is unlimited"
        resource.setrlimit(number, (hard, hard))
        return f"raised {name}"

    return first(*each(("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE", "RLIMIT_MSGQUEUE"), up))
