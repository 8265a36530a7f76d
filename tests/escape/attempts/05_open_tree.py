"""Clone the tree of mounts into a descriptor.

gain: a private copy of the tree, outside of what Landlock's rules name
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call, each, first


def attempt(world):
    def clone(name):
        more = (0, 0) if name == "open_tree_attr" else ()
        call(name, -100, b"/", 1 | 0x8000, *more)
        return f"{name} cloned the root"

    return first(*each(("open_tree", "open_tree_attr"), clone))
