"""Attributes of a union's root, by which other processes speak to its daemon.

They are on no disk: the daemon answers for them itself, and lists them to nobody.
"""

# What `unionfs status` asks for: `mounting.live`.
STATUS = "trusted.unionfs.status"

# Set by `unionfs commit`, on what it is going to carry into the lower: `Changes.stand_alone`.
ALONE = "trusted.unionfs.alone"
