"""What is under way on the loopback: the connections whose two ends live in one virtual loop.

A virtual loop may let its time jump only when nothing can happen any more without it. Bytes
that one end has sent and the other has not yet received are something that will still happen,
so every socket of the loop counts what it sends and receives, and `Wire` sets the two ends of
a connection beside each other. The kernel is not asked (its send queues hold bytes until the
acknowledgement, which it may delay by 40 ms): what left one end and has not arrived at the
other is known exactly by counting.

Bytes sent to an end that does not read (its transport is paused) are not under way: they wait
for that end, which may itself be waiting for the time to go on.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
from collections.abc import Callable, Iterator
from typing import Any

Address = tuple[Any, ...]

ENOUGH = 32 * 1024
"""Bytes in a receive queue that count as arrived even if more is on its way (large bodies)."""


class End(socket.socket):
    """One end of a connection: a socket that counts the bytes it sends and receives."""

    sent: int = 0
    received: int = 0
    shut: bool = False
    """Nothing more will be sent: shut down for writing, or closed."""
    saw_eof: bool = False
    closed: bool = False
    order: int = 0
    """Counts up in the order in which connections were made."""
    wire: Wire
    pair: Pair

    def send(self, *args: Any) -> int:
        """Send, and count what the kernel took."""
        count = super().send(*args)
        self.sent += count
        self.wire.stirred(self.pair)
        return count

    def sendmsg(self, *args: Any) -> int:
        """Send several buffers (`writelines` from Python 3.12 on), and count what was taken."""
        count = super().sendmsg(*args)
        self.sent += count
        self.wire.stirred(self.pair)
        return count

    def recv(self, *args: Any) -> bytes:
        """Receive and count; an empty answer is the other end's end of file."""
        data = super().recv(*args)
        self.received += len(data)
        self.saw_eof = self.saw_eof or not data
        return data

    def recv_into(self, *args: Any) -> int:
        """Receive into a buffer and count; 0 is the other end's end of file."""
        count = super().recv_into(*args)
        self.received += count
        self.saw_eof = self.saw_eof or not count
        return count

    def shutdown(self, how: int) -> None:
        """Shut down; the other end will be told."""
        super().shutdown(how)
        self.shut = self.shut or how != socket.SHUT_RD
        self.wire.stirred(self.pair)

    def close(self) -> None:
        """Close; the other end will be told."""
        if not self.closed:
            self.closed = self.shut = True
            self.wire.forget(self)
        super().close()

    def queued(self) -> int:
        """Bytes that lie in this end's receive queue, in the kernel."""
        answer = array.array("i", [0])
        fcntl.ioctl(self.fileno(), termios.FIONREAD, answer)
        return answer[0]


class Listener(socket.socket):
    """A listening socket that says which connection each accepted socket belongs to."""

    wire: Wire

    def accept(self) -> tuple[socket.socket, Address]:
        """Accept; a connection from this loop is counted from its first byte on."""
        plain, address = super().accept()
        return self.wire.accepted(plain, address), address


class Pair:
    """The two ends of one connection inside the loop; an end is None until it is made."""

    __slots__ = ("addresses", "client", "server")

    def __init__(self, addresses: tuple[Address, Address]) -> None:
        self.addresses = addresses
        self.client: End | None = None
        self.server: End | None = None

    def directions(self) -> Iterator[tuple[End, End]]:
        """Sender and receiver, once for each way; nothing before both ends are made."""
        if self.client is not None and self.server is not None:
            yield self.client, self.server
            yield self.server, self.client

    def is_being_made(self) -> bool:
        """Whether an end is still missing that is about to come."""
        if self.client is not None and self.server is not None:
            return False
        alone = self.client or self.server
        return alone is None or not (alone.closed or alone.saw_eof)


class Wire:
    """All connections of one loop, and the descriptors known to belong to it.

    A descriptor that is not known here belongs to somebody outside (a pipe of a subprocess, a
    connection to another process): while one is registered the loop's time keeps the wall's pace.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._addresses: set[Address] = set()
        """Where listeners of this loop stand or stood."""
        self._pairs: dict[tuple[Address, Address], Pair] = {}
        self._stirred: dict[Pair, None] = {}
        self._ends: dict[int, End] = {}
        self._connecting: set[int] = set()
        self._order = 0

    # Making connections ---------------------------------------------------------------------

    def listen(self, plain: socket.socket) -> Listener:
        """Take over a listening socket, so that its connections are counted."""
        listener = Listener(fileno=plain.detach())
        listener.setblocking(False)
        listener.wire = self
        self._listeners.append(listener)
        self._addresses.add(listener.getsockname())
        return listener

    def is_ours(self, address: object) -> bool:
        """Whether a listener of this loop stands at this address, or stood there.

        Where one stood a connection is refused, which concerns nobody outside: a server that is
        being restarted must not let time go at the wall's pace meanwhile.
        """
        return address in self._addresses

    def is_served(self, address: object) -> bool:
        """Whether a listener of this loop stands at this address now."""
        self._listeners = [each for each in self._listeners if each.fileno() >= 0]
        return any(each.getsockname() == address for each in self._listeners)

    def connecting(self, number: int) -> None:
        """A connection to one of our listeners is being made on this descriptor."""
        self._connecting.add(number)

    def connected(self, number: int, addresses: tuple[Address, Address] | None) -> None:
        """That connection stands between these addresses (client, server), or failed (None)."""
        self._connecting.discard(number)
        if addresses is not None:
            self._pair(addresses)

    def accepted(self, plain: socket.socket, address: Address) -> socket.socket:
        """The server's end of a connection; a caller from outside gets a plain socket."""
        addresses = (address, plain.getsockname())
        if addresses not in self._pairs and not self._is_being_made(address):
            return plain
        pair = self._pair(addresses)
        pair.server = self._adopt(plain, pair)
        return pair.server

    def client_end(self, plain: socket.socket) -> socket.socket:
        """The client's end of a connection made by `connected`; others stay plain."""
        pair = self._pairs.get((plain.getsockname(), plain.getpeername()))
        if pair is None or pair.client is not None:
            return plain
        pair.client = self._adopt(plain, pair)
        return pair.client

    def _pair(self, addresses: tuple[Address, Address]) -> Pair:
        pair = self._pairs.get(addresses)
        if pair is None or (pair.client is not None and pair.client.closed):
            pair = self._pairs[addresses] = Pair(addresses)
        self.stirred(pair)
        return pair

    def _adopt(self, plain: socket.socket, pair: Pair) -> End:
        self._order += 1
        end = End(fileno=plain.detach())
        end.setblocking(False)
        end.order = self._order
        end.wire = self
        end.pair = pair
        self._ends[end.fileno()] = end
        return end

    def _is_being_made(self, address: Address) -> bool:
        # The kernel may let the server accept before the client's loop was told it is connected.
        for number in self._connecting:
            borrowed = socket.socket(fileno=number)
            try:
                if borrowed.getsockname() == address:
                    return True
            finally:
                borrowed.detach()
        return False

    # What a loop wants to know --------------------------------------------------------------

    def knows(self, number: int) -> bool:
        """Whether this descriptor is one of the loop's own."""
        return (
            number in self._ends
            or number in self._connecting
            or any(each.fileno() == number for each in self._listeners)
        )

    def order(self, number: int) -> int:
        """A number that sorts descriptors by when their connection was made."""
        end = self._ends.get(number)
        return end.order if end is not None else 0

    def stirred(self, pair: Pair) -> None:
        """Something was sent, shut or made on this connection: look at it until it is quiet."""
        self._stirred[pair] = None

    def forget(self, end: End) -> None:
        """An end is being closed; its descriptor may be used for something else."""
        self._ends.pop(end.fileno(), None)
        self.stirred(end.pair)

    def under_way(self, reads: Callable[[int], bool], writes: Callable[[int], bool]) -> bool:
        """Whether something is still to arrive at an end that is reading.

        `reads` and `writes` tell whether a descriptor is registered for that.
        """
        found = bool(self._connecting)
        for pair in list(self._stirred):
            if pair.is_being_made():
                found = True
                continue
            quiet = True
            for sender, receiver in pair.directions():
                if receiver.closed:
                    continue
                owed = sender.sent > receiver.received or (sender.shut and not receiver.saw_eof)
                blocked = not sender.closed and writes(sender.fileno())
                quiet = quiet and not owed and not blocked
                found = found or ((owed or blocked) and reads(receiver.fileno()))
            if quiet:
                del self._stirred[pair]
                if all(end is None or end.closed for end in (pair.client, pair.server)):
                    self._pairs.pop(pair.addresses, None)
        return found

    def arrived(self, reads: Callable[[int], bool]) -> bool:
        """Whether all that was sent lies in the receivers' queues, ready to be read."""
        for pair in self._stirred:
            for sender, receiver in pair.directions():
                missing = sender.sent - receiver.received
                if missing > 0 and not receiver.closed and reads(receiver.fileno()):
                    queued = receiver.queued()
                    if queued < missing and queued < ENOUGH:
                        return False
        return True
