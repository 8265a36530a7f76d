"""Open what every file permission allows and Landlock does not.

gain: a list of all there is
attack: T1083
stopped by: Landlock
unconfined: host
"""

import os


def attempt(world):
    os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    return "opened /"
