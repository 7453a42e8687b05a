"""The life of one mount: mounting, serving, going away."""

import dataclasses
import errno
import gc
import os
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace

import pyfuse3
import trio

from unionfs.fuse.session import messages, privileges
from unionfs.fuse.session.device import Device, PlainReplies
from unionfs.fuse.session.dispatch import Dispatcher, Handlers
from unionfs.fuse.session.grants import Granted, Switches, granted
from unionfs.fuse.session.lines import can_ask
from unionfs.fuse.session.loop import FastLoop, Loop
from unionfs.fuse.session.pipe import Piece
from unionfs.fuse.session.protocol import Init, InitPatch, Offer
from unionfs.host import mountcalls, mountinfo
from unionfs.host.credentials import Requester
from unionfs.layers.far import FarLayer

# Workers: one watches, one is there to replace it at once; more come while handlers wait for
# threads, and go afterwards.
_IDLE_WORKERS = 1
_MOST_WORKERS = 100

_WANTED = (
    Init.PARALLEL_DIROPS
    | Init.DONT_MASK
    | Init.CACHE_SYMLINKS
    | Init.HANDLE_KILLPRIV_V2
    | Init.DIRECT_IO_ALLOW_MMAP
)
# The oldest protocol whose structs are those of `messages`.
_KNOWN_PROTOCOL = (7, 31)

BACKGROUND_REQUESTS = 64
READAHEAD_KIB = 512

# The errors of mount(2) for processes that have to ask fusermount3.
_NO_PRIVILEGE = (errno.EPERM, errno.EACCES)

_OPTION_OF_FLAG = {
    mountcalls.MS_NODEV: ("nodev", "dev"),
    mountcalls.MS_NOSUID: ("nosuid", "suid"),
    mountcalls.MS_NOEXEC: ("noexec", "exec"),
    mountcalls.MS_RDONLY: ("ro", "rw"),
    mountcalls.MS_NOATIME: ("noatime", "atime"),
    mountcalls.MS_SYNCHRONOUS: ("sync", "async"),
    mountcalls.MS_DIRSYNC: ("dirsync", ""),
}


class Session:
    """One mount and its way to the kernel; at most one per process, as pyfuse3 has globals.

    `mount`, then `serve`, then `close`, which must be called in any case.
    """

    def __init__(  # noqa: PLR0913  # all but the first by name
        self,
        mountpoint: str,
        *,
        source: str,
        subtype: str,
        mount_flags: int,
        switches: Switches,
        stack_depth: int = 1,
        background: int = BACKGROUND_REQUESTS,
    ) -> None:
        """Prepare a mount of type fuse.*subtype*, of plain fuse where that is empty.

        *stack_depth* 1 allows passthrough to ordinary filesystems, 2 also to
        overlays, but then no kernel overlay can be mounted over this one.  At most *background*
        reads ahead and the like may wait at the same time, before others have to.
        """
        self.granted = Granted()
        self._path = os.path.realpath(mountpoint)
        self._source = source
        self._subtype = subtype
        self._flags = mount_flags
        self._switches = switches
        self._depth = stack_depth
        self._background = background
        self._replies: PlainReplies = PlainReplies()
        self._mount: mountinfo.MountInfo | None = None
        self._offer: Offer | None = None
        self._refused = ""
        self._initialized = False
        self._loop: Loop = Loop(self._replies)
        self._trio = SimpleNamespace()
        self._started: Callable[[], None] = lambda: None
        self._served = False
        self._handlers: Handlers | None = None
        self._dispatcher: Dispatcher | None = None

    def mount(self, operations: pyfuse3.Operations, handlers: Handlers | None = None) -> None:
        """Mount, and make *operations* ready to serve; raise OSError when that cannot be.

        Requests that *handlers* answers do not come to *operations*.
        """
        self._handlers = handlers
        if not (self._switches.handshake and self._mounted_by_us(operations)):
            self._mounted_by_libfuse(operations)
            self._mount = mountinfo.top_at(self._path)
        make = FastLoop if self._switches.loop else Loop
        self._loop = make(self._replies)

    def _mounted_by_us(self, operations: pyfuse3.Operations) -> bool:
        device = Device()
        self._replies = device
        try:
            self._mount_device(device.device)
        except OSError as exc:
            self._drop_device()
            if exc.errno not in _NO_PRIVILEGE:
                raise
            self._refused = f"mount(2): {exc.strerror}"
            return False
        self._mount = mountinfo.top_at(self._path)
        self._offer = device.introduce()
        pyfuse3.init(operations, f"/dev/fd/{device.fd}", set())
        self._initialized = True
        return True

    def _mount_device(self, device: int) -> None:
        data = (
            f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
            ",default_permissions,allow_other"
        )
        kind = f"fuse.{self._subtype}" if self._subtype else "fuse"
        mountcalls.mount(self._source, self._path, kind, self._flags, data)

    def _mounted_by_libfuse(self, operations: pyfuse3.Operations) -> None:
        options = {"default_permissions", "allow_other"}
        if self._subtype:
            options.add(f"subtype={self._subtype}")
        options.add("fsname=" + self._source.replace("\\", "\\\\").replace(",", "\\,"))
        options |= {
            yes if self._flags & flag else no for flag, (yes, no) in _OPTION_OF_FLAG.items()
        }
        options.discard("")
        try:
            pyfuse3.init(operations, self._path, options)
        except RuntimeError as exc:  # libfuse has said why on stderr
            raise OSError(errno.EPERM, f"libfuse cannot mount: {exc}", self._path) from exc
        self._initialized = True
        if self._flags & (mountcalls.MS_NODIRATIME | mountcalls.MS_STRICTATIME):  # not libfuse's
            only_this = mountcalls.MS_REMOUNT | mountcalls.MS_BIND
            mountcalls.mount("none", self._path, "none", self._flags | only_this)

    async def serve(self, started: Callable[[], None]) -> None:
        """Serve until the mount is gone; call *started* when it serves.

        Cancellation and `pyfuse3.terminate` end this, too; then `close` unmounts.
        """
        self._started = started
        privileges.mark_as_io_flusher()
        privileges.heed_quotas()
        self._trio = self._loop.as_trio(self._wait_for_init)
        pyfuse3.trio = self._trio  # type: ignore[attr-defined]  # the stubs do not tell
        trio.lowlevel.add_instrument(self._loop)
        try:
            await pyfuse3.main(_IDLE_WORKERS, _MOST_WORKERS)
        finally:
            trio.lowlevel.remove_instrument(self._loop)
            pyfuse3.trio = trio  # type: ignore[attr-defined]
        if not self._served:
            raise OSError(errno.EPROTO, "the mount ended before it served", self._path)

    async def _wait_for_init(self, fd: int) -> None:
        """Stand in for the loop's wait before the first request, which is INIT."""
        self._trio.lowlevel.wait_readable = self._wait_after_init
        if isinstance(self._replies, Device):
            return  # INIT waits in the socket pair
        self._loop.watch(fd)
        await self._loop.wait_readable(fd)

    async def _wait_after_init(self, fd: int) -> None:
        """Stand in for the loop's wait once: libfuse has just answered INIT."""
        self._trio.lowlevel.wait_readable = self._loop.wait_readable
        self._welcome()
        await self._loop.wait_readable(fd)

    def _welcome(self) -> None:
        """Finish the handshake, and tell that the mount serves."""
        self.granted = Granted(loop=self._switches.loop, refused=self._refused)
        if isinstance(self._replies, Device):
            self.granted = self._finish(self._replies)
        if self._mount is not None:
            privileges.set_readahead(self._mount.device, READAHEAD_KIB)
        self._served = True
        gc.freeze()  # present objects stay: the collector need not look at them
        self._started()

    def _finish(self, device: Device) -> Granted:
        answer = device.answer(self._init_patch())
        self._loop.watch(device.device)
        result = granted(self._offer, answer, loop=self._switches.loop)
        if result.passthrough and not device.can_register():
            result = dataclasses.replace(result, passthrough=False)
        if (
            result.handshake
            and Init.SETXATTR_EXT not in result.flags  # libfuse never asks for it: `messages`
            and self._dispatches()
            and self._handlers
            and isinstance(self._loop, FastLoop)
        ):
            self._dispatcher = Dispatcher(
                device, self._handlers, result.max_write, self._loop.polling
            )
            self._loop.serve_with(self._dispatcher)
            result = dataclasses.replace(result, direct=True, noopen=self._leaves_opens_out())
        return result

    def _dispatches(self) -> bool:
        """Tell whether requests are to be answered without libfuse."""
        known = self._offer is not None and self._offer.protocol >= _KNOWN_PROTOCOL
        return known and self._switches.direct and self._switches.loop and bool(self._handlers)

    def _passes(self) -> bool:
        """Tell whether file data is to pass through, as far as the kernel's offer goes."""
        offered = self._offer is not None and Init.PASSTHROUGH in self._offer.flags
        return offered and self._switches.passthrough and not self._switches.noopen

    def _leaves_opens_out(self) -> bool:
        """Tell whether files are to be used without being opened."""
        offered = self._offer is not None and Init.NO_OPEN_SUPPORT in self._offer.flags
        return offered and self._switches.noopen and self._dispatches()

    def _init_patch(self) -> InitPatch:
        """Return the changes to the INIT reply.

        AUTO_INVAL_DATA drops a file's cache after each write to it, as the mtime is new.
        Only this mount changes files, and it knows which writes may go round the cache.
        With noopen there is no open to truncate a file: without ATOMIC_O_TRUNC the
        kernel sends a SETATTR for that.
        """
        flags, unwanted = _WANTED, Init.AUTO_INVAL_DATA
        if self._passes():
            flags |= Init.PASSTHROUGH
        if self._leaves_opens_out():
            unwanted |= Init.ATOMIC_O_TRUNC
        if self._flags & mountcalls.MS_STRICTATIME:  # each readlink(2) counts
            flags, unwanted = flags & ~Init.CACHE_SYMLINKS, unwanted | Init.CACHE_SYMLINKS
        if self._dispatches():
            flags |= Init.READDIRPLUS_AUTO  # pyfuse3 knows READDIRPLUS alone
        return InitPatch(flags, unwanted, self._background, self._depth)

    def register(self, fd: int) -> int:
        """Return a backing id for *fd*, to be given to `unregister`; OSError when not granted.

        It costs 20 us and more, so an id is better kept for later opens.
        """
        if not self.granted.passthrough:
            raise OSError(errno.EOPNOTSUPP, "no kernel passthrough on this mount")
        return self._replies.register(fd)

    def unregister(self, backing: int) -> None:
        """Let go of a backing id; open files that use it keep it."""
        self._replies.unregister(backing)

    def pass_through(self, backing: int, *, direct_io: bool = False) -> None:
        """Have the open or create that is being handled pass its data to *backing*.

        No await may come between this call and the handler's return.  With
        *direct_io* reads and writes still come to the handlers, and only mmap
        goes to the backing file.
        """
        self._replies.pass_through(backing, direct_io=direct_io)

    def send_pieces(self, unique: int, pieces: Sequence[Piece]) -> bool:
        """Reply to request *unique* with parts of files; say whether that was done.

        They should be in the page cache.
        """
        count = sum(piece[2] for piece in pieces)
        return self._replies.send_pieces(messages.header(unique, count), pieces)

    @property
    def device(self) -> str:
        """Return the number of the mounted file system, MAJOR:MINOR; "" before that."""
        return "" if self._mount is None else self._mount.device

    def requester(self, unique: int, uid: int, gid: int) -> Requester:
        """Return who made the request that is being handled directly."""
        thread = 0 if self._dispatcher is None else self._dispatcher.thread(unique)
        return Requester(uid, gid, thread)

    def ask(self, layers: Iterable[FarLayer]) -> bool:
        """Let requests wait for far layers, each for itself; False where that is not possible."""
        if self._dispatcher is None or not isinstance(self._loop, FastLoop) or not can_ask():
            return False
        self._dispatcher.ask(layers)
        self._loop.wake_for(self._dispatcher.wake_fd)
        return True

    def was_asked(self) -> bool:
        """Tell whether requests have come since this was called last."""
        asked, self._loop.asked = self._loop.asked, False
        return asked

    def catch_up(self) -> None:
        """Do what was put off, for a handler that has to know which files are open."""
        if self._dispatcher is not None:
            self._dispatcher.catch_up()

    def invalidate_attributes(self, ino: int) -> None:
        """Make the kernel ask for the attributes of a node before it uses them again."""
        self._replies.notify(messages.invalid_attributes(ino))

    def cache_listing(self) -> None:
        """Have the kernel keep the listing of the directory whose opendir is being handled.

        As with `pass_through`, no await may come before the handler's return.
        """
        self._replies.cache_listing()

    def close(self) -> None:
        """Unmount if need be, and let go of everything."""
        device = self._replies if isinstance(self._replies, Device) else None
        if device is not None and self._mount is not None and device.is_connected():
            mountinfo.detach(self._mount.device)
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self._initialized:
            pyfuse3.close(unmount=device is None)
        self._drop_device()
        self._initialized = False

    def _drop_device(self) -> None:
        if isinstance(self._replies, Device):
            self._replies.close()
            if not self._initialized:
                os.close(self._replies.fd)
        self._replies = PlainReplies()
