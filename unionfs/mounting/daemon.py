"""The process that serves one mount, from opened layers to a clean end.

SIGTERM, SIGINT and SIGHUP unmount: at once, or, while the mount is in use, lazily;
then the daemon serves until the last user has gone.  After a clean end others may
have the upper (`claims`), and its file system is synced (not with fsync=off).  So
everything written before umount(8) survives a power cut that comes after the daemon
has gone.
"""

import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unionfs.host import mountcalls, mountinfo, syscalls
from unionfs.layers.far import FarLayer
from unionfs.layers.stack import Stack
from unionfs.mounting import claims, live, motd, opening, stateside
from unionfs.mounting.options import Options, Refused

if TYPE_CHECKING:
    from unionfs.fuse.direct import Direct
    from unionfs.fuse.filling import Filling
    from unionfs.fuse.operations import Operations
    from unionfs.fuse.session import Session
    from unionfs.mounting.guard import Watch
    from unionfs.view.union import Union

log = logging.getLogger(__name__)

_FAILED = 1  # exit status

# Reads ahead that may wait for far layers before others have to wait for the kernel:
# fs/fuse/dev.c, fuse_block_alloc.
_FAR_BACKGROUND = 4096


def open_and_serve(options: Options, mountpoint: str, started: Callable[[], None]) -> int:
    """Open the layers, mount and serve; raise Refused where that cannot be."""
    if not options.disks:
        return _open_and_serve(options, mountpoint, started)
    from unionfs.mounting import ourdisks  # noqa: PLC0415 - few mounts have any

    with ourdisks.held(options.disks):
        return _open_and_serve(options, mountpoint, started)


def _open_and_serve(options: Options, mountpoint: str, started: Callable[[], None]) -> int:
    opening.require_privileges()
    try:
        stack = opening.open_stack(options, mountpoint)
    except OSError as exc:  # as few descriptors as this process may have
        raise Refused(f"the layers cannot be opened: {exc.strerror}") from exc
    try:
        if options.planted:
            from unionfs.mounting import planting  # noqa: PLC0415 - few mounts have anything of it

            planting.plant(stack, options)
        status = serve(stack, options, mountpoint, started)
        claims.release(*stack.writable())
        return status or sync(stack, options)
    finally:
        stack.close()


def serve(
    stack: Stack,
    options: Options,
    mountpoint: str,
    started: Callable[[], None],
    before_unmounting: Callable[[], None] = lambda: None,
) -> int:
    """Mount and serve until unmounted; *started* is called when the mount serves.

    *before_unmounting* is called in a thread when a signal asks for the end.
    Returns the exit status.  The process's own directory and umask change.
    """
    _take_place()
    union, stack = _union(stack, options)
    session, operations, direct = _prepared(stack, union, options, mountpoint)
    watches = _watches(stack, options, mountpoint) + _filling(operations, options)

    def welcome() -> None:
        operations.serve_with(session.granted)
        started()

    # A signal between mounting and serving would leave a dead mount behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ending())
    try:
        session.mount(operations, direct)
        log.info("mounted at %s", mountpoint)
        _serve(session, mountpoint, watches, welcome, before_unmounting)
    except OSError as exc:
        log.error("cannot mount at '%s': %s", mountpoint, exc.strerror or exc)  # noqa: TRY400
        return _FAILED
    finally:
        session.close()
        direct.close()
        for watch in watches:
            watch.leave()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ending())
    log.info("unmounted from %s", mountpoint)
    _settle(operations)
    return 0


def _take_place() -> None:
    os.chdir("/")  # a daemon keeps no directory busy
    os.umask(0)  # modes come with the requests


def _filling(operations: "Operations", options: Options) -> "list[Watch | Filling]":
    """Return the filling of files that upper has in part; no request is served yet."""
    if options.fill == "off":
        return []
    from unionfs.fuse.filling import Filling  # noqa: PLC0415 - few unions do

    union, files, session = operations.union, operations.files, operations.session
    filling = Filling(union, files.copies, files.partials, session.was_asked, files.is_written)
    filling.find()
    return [filling]


def _settle(operations: "Operations") -> None:
    """Make the files whole that upper has in part; log those that cannot be made whole."""
    from unionfs.changes import settling  # noqa: PLC0415 - as in `_prepared`

    try:
        settling.settle(operations.files.partials)
    except OSError:
        log.exception("files may be in upper in part: run 'unionfs settle' on it")


def _ending() -> tuple[signal.Signals, ...]:
    """Return the signals that end this daemon: SIGTERM, and those that nohup(1) and `&` ignore."""
    ignorable = (signal.SIGINT, signal.SIGHUP)
    heard = (number for number in ignorable if signal.getsignal(number) is not signal.SIG_IGN)
    return signal.SIGTERM, *heard


def _union(stack: Stack, options: Options) -> "tuple[Union, Stack]":
    """Build the union; if state fails, build it without state (`stateside`).

    Also return the stack that the union has.
    """
    from unionfs.changes.assembly import union_of  # noqa: PLC0415 - as in `_prepared`
    from unionfs.view.union import Features, Union  # noqa: PLC0415

    features = Features(
        metacopy=options.metacopy == "on",
        redirect_dir=options.redirect_dir == "on",
        whiteout=options.whiteout,
        fsync=options.fsync,
        copyup=options.copyup or "whole",
        volatile=options.ram is not None,
    )
    try:
        return union_of(stack, features), stack
    except OSError as exc:
        if stack.state is None:
            raise
        name = stack.state.upper.name
        why = stateside.Lost(f"state '{name}' is damaged: {exc.strerror}")
    without = dataclasses.replace(stack, state=None, state_lost=stateside.told(options, why))
    return Union(without, features), without


def _prepared(
    stack: Stack, union: "Union", options: Options, mountpoint: str
) -> tuple["Session", "Operations", "Direct"]:
    """Import the slow modules, and prepare the verbs that serve."""
    from unionfs.changes import assembly  # noqa: PLC0415 - so that bad input is told at once
    from unionfs.fuse.direct import Direct  # noqa: PLC0415
    from unionfs.fuse.operations import Operations  # noqa: PLC0415
    from unionfs.fuse.session import BACKGROUND_REQUESTS, Session, Switches  # noqa: PLC0415

    far = any(isinstance(layer, FarLayer) for layer in stack.lowers)
    session = Session(
        mountpoint,
        source=options.source,
        subtype=options.subtype,
        mount_flags=options.flags | (0 if stack.upper else mountcalls.MS_RDONLY),
        switches=Switches(
            loop=options.loop == "on",
            direct=options.direct == "on",
            handshake=options.handshake == "on",
            passthrough=options.passthrough != "off",
            noopen=options.noopen == "on",
        ),
        stack_depth=2 if _has_overlay(stack) else 1,
        background=_FAR_BACKGROUND if far else BACKGROUND_REQUESTS,
    )
    union.access.follow(options.flags)
    operations = Operations(
        union,
        session,
        passthrough=options.passthrough,
        status=live.describe(stack, options),
    )
    assembly.make_ways(union, operations.changes)
    return session, operations, Direct(operations)


def _has_overlay(stack: Stack) -> bool:
    """Tell whether a layer lies on a kernel overlay, which takes a passthrough of depth two."""
    overlays = {mount.device for mount in mountinfo.mounts() if mount.kind == "overlay"}
    layers = (*stack.writable(), *stack.lowers)
    devices = {f"{os.major(layer.device)}:{os.minor(layer.device)}" for layer in layers}
    return not overlays.isdisjoint(devices)


def _watches(stack: Stack, options: Options, mountpoint: str) -> "list[Watch | Filling]":
    """Return the guards of the uppers; they open what they need before there is a mount."""
    from unionfs.mounting.guard import Guard, Loss, Nurse, Watch  # noqa: PLC0415 - as in `_prepared`

    if stack.upper is None:
        return []
    said = motd.of_this_namespace()
    if options.boot == "on":
        mountpoint = "/"
    watches: list[Watch | Filling] = [Guard(stack.upper.fd, mountpoint, said)]
    if not syscalls.is_tmpfs(stack.upper.fd):
        watches.append(Nurse(stack.upper.fd, mountpoint, said, "upper"))
    if stack.state is not None:
        watches.append(Guard(stack.state.upper.fd, mountpoint, said, "state"))
        watches.append(Nurse(stack.state.upper.fd, mountpoint, said, "state"))
    elif stack.state_lost:
        watches.append(Loss(stack.state_lost, mountpoint, said))
    return watches


def _serve(
    session: "Session",
    mountpoint: str,
    watches: "Sequence[Watch | Filling]",
    started: Callable[[], None],
    before_unmounting: Callable[[], None],
) -> None:
    import trio  # noqa: PLC0415 - as in `_prepared`

    ours = mountinfo.top_at(mountpoint)

    async def unmount_on_signal() -> None:
        ending = _ending()
        with trio.open_signal_receiver(*ending) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
            async for number in signals:
                log.info("%s: unmounting", signal.Signals(number).name)
                # In a thread: the kernel may write dirty pages to us before it lets go.
                await trio.to_thread.run_sync(before_unmounting)
                await trio.to_thread.run_sync(_unmount, mountpoint, ours)

    async def life() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unmount_on_signal)
            for watch in watches:
                nursery.start_soon(watch.watch)
            await session.serve(started)
            nursery.cancel_scope.cancel()

    trio.run(life)


def _unmount(mountpoint: str, ours: mountinfo.MountInfo | None) -> None:
    top = mountinfo.top_at(mountpoint)
    if top is None or ours is None or top[:2] != ours[:2]:  # number and device
        log.warning("%s is hidden or moved: unmount it by hand", mountpoint)
        return
    try:
        mountcalls.umount(mountpoint)
    except OSError as exc:
        log.info("%s: %s; unmounting lazily", mountpoint, exc.strerror)
        mountcalls.umount(mountpoint, mountcalls.MNT_DETACH)


def sync(stack: Stack, options: Options) -> int:
    """Sync upper's disk, unless fsync=off; return the exit status."""
    if options.fsync == "off":
        return 0
    # Scratch is emptied at the next mount.
    uppers = {"upper": stack.upper} if options.ram is None and not options.state else {}
    if stack.state is not None:
        uppers["state"] = stack.state.upper
    failed = False
    for role, upper in uppers.items():
        if upper is None:
            continue
        try:
            mountcalls.sync_filesystem(upper.fd)
        except OSError as exc:
            log.error("%s '%s' is not all on disk: %s", role, upper.name, exc)  # noqa: TRY400
            failed = True
    return _FAILED if failed else 0
