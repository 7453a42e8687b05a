"""What tests say about system calls: how they fail, who makes them, what a tree looks like."""

import errno
import hashlib
import os
import pickle
import stat
import traceback

NOBODY = 65534
# ENOTSUP is the same number; system calls are documented with the other name.
_NAMES = errno.errorcode | {errno.EOPNOTSUPP: "EOPNOTSUPP"}
_HASHED = 4 << 20  # bytes; larger files are compared by their metadata


def failure(function, *args, **kwargs):
    """Return the name of the errno that the call fails with, "" where it does not fail."""
    try:
        function(*args, **kwargs)
    except OSError as exc:
        return _NAMES[exc.errno]
    return ""


def apart(function, *args):
    """Return what the function returns, or raise what it raises, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(writing, function, args)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(data)
    if good:
        return value
    raise value


def _answer(writing, function, args):
    try:
        try:
            answer = (True, function(*args))
        except OSError as exc:
            answer = (False, exc)
        except BaseException:  # noqa: BLE001 (pytest's failures, too, are told to the parent)
            answer = (False, AssertionError(traceback.format_exc()))
        with open(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def as_user(function, *args, uid=NOBODY, gid=NOBODY, groups=(), umask=0o022):
    """Run the function as another user in a process of its own."""

    def other():
        os.umask(umask)
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        return function(*args)

    return apart(other)


def portrait(root, *, inodes=True):
    """Describe a tree: what each path shows of itself; two equal trees look the same."""
    return {
        os.path.relpath(path, root): _features(path, inodes=inodes)
        for top, directories, files in os.walk(root)
        for path in (top, *(os.path.join(top, name) for name in files + directories))
    }


def _features(path, *, inodes):
    st = os.lstat(path)
    features = [stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_rdev, st.st_mtime_ns]
    if inodes:
        features.append(st.st_ino)
    if not stat.S_ISDIR(st.st_mode):  # those of directories say nothing of a union, as in overlayfs
        features += [st.st_size, st.st_nlink] if inodes else [st.st_size]
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not name.startswith("trusted.overlay."):
            features.append((name, os.getxattr(path, name, follow_symlinks=False)))
    if stat.S_ISREG(st.st_mode) and st.st_size <= _HASHED:
        with open(path, "rb") as file:
            features.append(hashlib.sha1(file.read()).hexdigest())
    elif stat.S_ISLNK(st.st_mode):
        features.append(os.readlink(path))
    return tuple(features)
