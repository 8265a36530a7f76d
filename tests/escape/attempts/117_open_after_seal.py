"""Open a file, whatever it is.

gain: anything that it did not hold already
attack: T1005
stopped by: Landlock
unconfined: host
levels: seal
"""

import os

from attacker import each, first


def attempt(world):
    def look(path):
        os.close(os.open(path, os.O_RDONLY))
        return f"opened {path}"

    return first(*each(("/usr/bin/env", "/etc/passwd", "/proc/self/status", "/dev/null", world["work"], "/tmp"), look))
