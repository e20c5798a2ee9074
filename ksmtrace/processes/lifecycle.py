"""Processes being born, renamed and dying, from the kernel's proc connector (pyroute2)."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_PATIENCE_MS = 500
_NETLINK_CONNECTOR = 11

What = Literal["fork", "exec", "comm", "exit"]


@dataclass(frozen=True)
class LifecycleEvent:
    """One process event. ts: nanoseconds of CLOCK_MONOTONIC. child: only for a fork."""

    ts: int
    what: What
    tgid: int
    child: int = 0


class ProcConnector:
    """A subscription to every fork, exec, rename and exit of whole processes on this host.

    Raises OSError where the kernel refuses it (not root, not the initial namespaces, or
    CONFIG_PROC_EVENTS is off).
    """

    def __init__(self) -> None:
        # Costs a tenth of a second to import, so only when a capture is under way.
        from pyroute2.netlink.connector import cn_proc

        class CommWithAnyBytes(cn_proc.proc_event_base):  # type: ignore[misc]  # untyped package
            """A rename whose name may be any bytes: pyroute2's own class fails on bad UTF-8."""

            fields = cn_proc.proc_event_comm.fields

        marshal = cn_proc.ProcEventMarshal()
        marshal.msg_map = {
            **cn_proc.ProcEventMarshal.msg_map,
            cn_proc.PROC_EVENT_COMM: CommWithAnyBytes,
        }
        self._names: dict[int, What] = {
            cn_proc.PROC_EVENT_FORK: "fork",
            cn_proc.PROC_EVENT_EXEC: "exec",
            cn_proc.PROC_EVENT_COMM: "comm",
            cn_proc.PROC_EVENT_EXIT: "exit",
        }
        self._marshal = marshal
        # A socket of our own: pyroute2's has a reader that may take the answer before we look.
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            self._socket.bind((0, cn_proc.CN_IDX_PROC))
            self._subscribe(cn_proc)
        except BaseException:
            self._socket.close()
            raise
        self.overruns = 0
        """How often the kernel dropped process events because they came too fast."""

    def _subscribe(self, cn_proc: Any) -> None:
        # pyroute2's own control() waits for an answer that never comes where the kernel ignores
        # the request: outside the initial namespaces, or without CONFIG_PROC_EVENTS.
        request = cn_proc.proc_event_control()
        request["action"] = cn_proc.PROC_CN_MCAST_LISTEN
        request["idx"], request["val"] = cn_proc.CN_IDX_PROC, cn_proc.CN_VAL_PROC
        request["len"] = 4
        request["header"]["type"] = cn_proc.NLMSG_DONE
        request.encode()
        self._socket.send(request.data)
        answer = select.poll()
        answer.register(self._socket.fileno(), select.POLLIN)
        if not answer.poll(_PATIENCE_MS):
            raise OSError(errno.EOPNOTSUPP, "the kernel does not answer")

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._socket.fileno()

    def read(self) -> Iterator[LifecycleEvent]:
        """The events that arrived since the last call. Never waits."""
        while True:
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                continue
            for message in self._marshal.parse(data):
                event = self._translate(message)
                if event is not None:
                    yield event

    def _translate(self, message: Any) -> LifecycleEvent | None:
        what = self._names.get(message["what"])
        if what == "fork":
            child = message["child_tgid"]
            # A new thread is reported as a fork too.
            if message["child_pid"] != child:
                return None
            return LifecycleEvent(message["timestamp_ns"], what, message["parent_tgid"], child)
        if what is None or message["process_pid"] != message["process_tgid"]:
            return None
        return LifecycleEvent(message["timestamp_ns"], what, message["process_tgid"])

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()
