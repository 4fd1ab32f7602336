"""Which processes share a batch."""

from __future__ import annotations

from typing import Literal

from torch import distributed
from torch.distributed import ProcessGroup

Group = ProcessGroup | Literal["world"] | None
"""Who shares a batch: a process group, all processes, or nobody."""


def sharing_group(group: Group) -> ProcessGroup | None:
    """The processes that share the batch, or None where this one has all of it.

    ``"world"`` is the default group at the time of the call, and nobody else where ``torch.distributed``
    is not initialised.

    Raises:
        TypeError: ``group`` is none of these. ValueError: another word, or a group without this process.
    """
    if group is None:
        return None
    if isinstance(group, str):
        if group != "world":
            raise ValueError(
                f"group is {group!r}; pass a process group, 'world' for all processes, or None"
            )
        if not (distributed.is_available() and distributed.is_initialized()):
            return None
        group = distributed.group.WORLD
    elif group is distributed.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(
            "this process is not in the group that was passed; call the loss in the group's own "
            "processes only, or pass the group that this process is in"
        )
    if not isinstance(group, ProcessGroup):
        raise TypeError(
            f"group is {type(group).__name__}; pass a torch.distributed.ProcessGroup, 'world' for all "
            "processes, or None"
        )
    return group if group.size() > 1 else None
