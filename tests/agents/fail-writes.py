"""Runs a command and makes its writes fail, as on a full or broken disk.

    fail-writes.py <log> <root> <errno> <first> <times> <directories> <command...>

Counts each system call of the command and its descendants that may need disk space (or, for errors other than
ENOSPC and EDQUOT, removes a file) and whose file lies in one of the directories (comma-separated, as seen from
inside the root). From <first> on, <times> of them fail with <errno>; 0 lets all pass. With SIGKILL for <errno>,
the command and its descendants are killed before that call. <first> is a number, or a regular expression for
the rest of the call's line in the log:

    <number> <phase> <program> <system call> <path> [failed]

The phase is the last `phase: <name>` that an agent printed. strace can make calls fail too, but counts separately
in each process; a preloaded library sees neither bash's output nor programs in Go.
"""

import errno
import os
import re
import select
import signal
import sys
import threading

import seccomp

# The arguments of a call that name its file: a descriptor, or a directory's descriptor and a path.
BY_DESCRIPTOR = {
    **dict.fromkeys(["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile"], 0),
    **dict.fromkeys(["ftruncate", "fallocate", "fsync", "fdatasync", "syncfs"], 0),
    "copy_file_range": 2,
}
BY_PATH = {
    **dict.fromkeys(["rename", "link", "symlink"], (None, 1)),
    **dict.fromkeys(["renameat", "renameat2", "linkat"], (2, 3)),
    "symlinkat": (1, 2),
    "mkdir": (None, 0),
    "mkdirat": (0, 1),
    "creat": (None, 0),
    "open": (None, 0),
    "openat": (0, 1),
}
REMOVALS = {"unlink": (None, 0), "unlinkat": (0, 1), "rmdir": (None, 0)}  # these need no room
FLAGS = {"open": 1, "openat": 2}
log_path, root, error, first, times, directories, *command = sys.argv[1:]
if error not in ("ENOSPC", "EDQUOT"):
    BY_PATH |= REMOVALS
proc = f"{root}/proc"  # a PID namespace has its own
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


def memory(pid, address, length):
    with open(f"{proc}/{pid}/mem", "rb", buffering=0) as file:
        file.seek(address)
        return file.read(length)


def text(pid, address):
    found = b""
    # never beyond the page, as the next one may not be there
    while b"\0" not in found and len(found) < 4096:
        start = address + len(found)
        found += memory(pid, start, 4096 - start % 4096)
    return os.fsdecode(found.split(b"\0")[0])


def path_of(notice, name):
    """The file of a call as seen from outside of the root; nothing for one that creates no file."""
    process, args = f"{proc}/{notice.pid}", notice.syscall_args
    if name in BY_DESCRIPTOR:
        return os.readlink(f"{process}/fd/{args[BY_DESCRIPTOR[name]]}")
    at, where = BY_PATH[name]
    path = text(notice.pid, args[where])
    if path.startswith("/"):
        path = os.path.join(os.readlink(f"{process}/root"), path.lstrip("/"))
    else:
        at = None if at is None or args[at] & 0xFFFFFFFF == 0xFFFFFF9C else args[at]  # AT_FDCWD
        path = os.path.join(os.readlink(f"{process}/cwd" if at is None else f"{process}/fd/{at}"), path)
    path = os.path.normpath(path)
    return "" if name in FLAGS and os.path.exists(path) else path


def main():
    kills, failure, left = error == "SIGKILL", -getattr(errno, error, 0), int(times)
    inside = tuple(f"{root}/{each.strip('/')}/" for each in directories.split(","))
    table = seccomp.SyscallFilter(seccomp.ALLOW)
    # without it, root could not become the agent's user
    table.set_attr(seccomp.Attr.CTL_NNP, 0)
    for name in [*BY_DESCRIPTOR, *BY_PATH]:
        creates = [seccomp.Arg(FLAGS[name], seccomp.MASKED_EQ, os.O_CREAT, os.O_CREAT)] if name in FLAGS else []
        table.add_rule(seccomp.NOTIFY, name, *creates)
    started = []

    def start():
        # the filter is this thread's alone, and goes on to what it starts
        table.load()
        child = os.fork()
        if child == 0:
            os.execvp(command[0], command)
        started.append(child)

    log = open(log_path, "w", buffering=1)
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    notices = select.poll()
    notices.register(table.get_notify_fd(), select.POLLIN)
    count, phase, reached = 0, "-", False
    while True:
        if not any(event & select.POLLIN for _, event in notices.poll(100)):
            child, status = os.waitpid(started[0], os.WNOHANG)
            if child:
                break
            continue
        try:
            notice = table.receive_notify()
        except Exception:
            continue  # killed in between
        failed = False
        try:
            name = seccomp.resolve_syscall(seccomp.Arch(), notice.syscall)
            name = name.decode() if isinstance(name, bytes) else name
            path = path_of(notice, name)
            if path.startswith(inside):
                count += 1
                with open(f"{proc}/{notice.pid}/comm") as file:
                    line = f"{phase} {file.read().strip()} {name} {path[len(root):]}"
                reached = reached or str(count) == first or (not first.isdigit() and re.search(first, line))
                failed = bool(reached and left > 0)
                left -= failed
                log.write(f"{count} {line}{' failed' if failed else ''}\n")
                if failed and kills:
                    # all of this PID namespace but its first process and this one
                    os.kill(-1, signal.SIGKILL)
                    sys.exit(128 + signal.SIGKILL)
            elif name == "write" and path.startswith(("pipe:", "socket:")):
                said = memory(notice.pid, notice.syscall_args[1], min(notice.syscall_args[2], 80))
                found = re.match(rb"[\w-]+: phase: (\w+)", said)
                phase = found[1].decode() if found else phase
        except OSError:
            pass  # killed in between
        try:
            answer = (0, failure, 0) if failed else (0, 0, CONTINUE)
            table.respond_notify(seccomp.NotificationResponse(notice, *answer))
        except Exception:
            pass  # likewise
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


main()
