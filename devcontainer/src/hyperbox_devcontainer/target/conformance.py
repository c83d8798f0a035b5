"""What every target must do, as one function: ``await check_target(make)``.

``make`` gives a fresh target and a ``Kit``: how to say on this target what the checks need said.
``posix_kit`` does for everything that has a POSIX shell, ``memory_kit`` for the memory target. A
target that fails raises AssertionError naming the check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.stream import ByteStream, connect_tcp
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError
from hyperbox_devcontainer.target.base import Target
from hyperbox_devcontainer.target.memory import Call, MemoryTarget

ODD = "a b/new\nline/quote'\"$HOME;é/-x *"
"""A path below a folder that nothing on the way may take apart."""
TIME = 20.0
LIMIT = 60.0
"""Seconds for one check: a target that hangs fails it."""


@dataclass(frozen=True, slots=True)
class Kit:
    """Commands of one target, and places on it."""

    folder: str
    """An absolute path of a folder that may be written below; it need not exist."""
    echo: tuple[str, ...]
    """Copies its input to its output until the end."""
    speak: tuple[str, ...]
    """Writes ``out`` and ``err`` to its streams and ends with status 3."""
    words: tuple[str, ...]
    """Writes its further arguments, a NUL behind each."""
    variable: tuple[str, ...]
    """Writes the value of the environment variable ``HYPERBOX_CHECK``."""
    deaf: tuple[str, ...]
    """Ends with status 0 and reads nothing."""
    hang: tuple[str, ...]
    """Does nothing for a minute, whatever its input says."""
    killed: tuple[str, ...] | None
    """Ends itself by signal 9, where this target has signals."""
    missing: tuple[str, ...]
    """A program that is not there."""
    show: Callable[[str], tuple[str, ...]]
    """Writes the bytes of a file, with a status other than 0 where there is none."""
    mode: Callable[[str], tuple[str, ...]]
    """Writes the permission bits of a file in octal."""
    listen: Callable[[], Awaitable[int]]
    """Starts an echo server on the target's loopback; gives its port."""


E = TypeVar("E", bound=Exception)
Make = Callable[[], AbstractAsyncContextManager[tuple[Target, Kit]]]


async def check_target(make: Make) -> None:
    """Run every check, each on a target of its own. Raises AssertionError."""
    for check in CHECKS:
        async with make() as (target, kit):
            try:
                async with asyncio.timeout(LIMIT):
                    await check(target, kit)
            except (AssertionError, TargetError, LinkLostError, TimeoutError) as error:
                raise AssertionError(f"{target.kind}: {check.__name__}: "
                                     f"{type(error).__name__}: {error}") from error
            finally:
                await target.close()


# -- streams ----------------------------------------------------------------------------------


async def a_stream_is_byte_clean_and_ends(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.echo, timeout=TIME)
    data = bytes(range(256)) + b"\r\n\x03\x04\x1b\0" * 100
    await stream.write(data)
    assert await _exactly(stream, len(data)) == data, "bytes were changed"
    await stream.end()
    assert await stream.read() == b"", "no end after the end of input"
    assert await stream.read() == b"", "an end must stay one"
    await stream.close()


async def large_data_passes_both_ways_at_once(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.echo, timeout=TIME)
    data = os.urandom(1 << 20) * 4
    sending = asyncio.ensure_future(_send(stream, data))
    assert await _all(stream) == data, "large data arrived wrong"
    await sending
    await stream.close()


async def many_streams_do_not_mix(target: Target, kit: Kit) -> None:
    async def one(number: int) -> None:
        stream = await target.open(kit.echo, timeout=TIME)
        data = b"%d;" % number * 20_000
        sending = asyncio.ensure_future(_send(stream, data))
        assert await _all(stream) == data, "streams were mixed"
        await sending
        await stream.close()

    await asyncio.gather(*(one(number) for number in range(6)))


async def errors_do_not_come_on_the_stream(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.speak, timeout=TIME)
    assert await _all(stream) == b"out", "standard error came on the stream"
    await stream.close()


async def a_closed_stream_refuses(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.echo, timeout=TIME)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.01)
    await stream.close()
    await stream.close()
    for waiting in (reading, stream.read(), stream.write(b"x")):
        assert await _raises(LinkLostError, waiting), "a closed stream was used"


async def writing_to_a_program_that_ended_raises(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.deaf, timeout=TIME)
    assert await stream.read() == b"", "no end although the program ended"

    async def write_on() -> None:
        for _ in range(1000):
            await stream.write(bytes(64 * 1024))
            await asyncio.sleep(0.001)

    assert await _raises(LinkLostError, write_on()), "nobody read, and writing went on"
    await stream.close()


async def a_read_that_is_cancelled_loses_nothing(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.echo, timeout=TIME)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading})
    await stream.write(b"abc")
    assert await _exactly(stream, 3) == b"abc", "bytes were lost with a cancelled read"
    await stream.close()


# -- commands ---------------------------------------------------------------------------------


async def a_command_gives_status_and_both_outputs(target: Target, kit: Kit) -> None:
    ran = await target.run(kit.speak, timeout=TIME)
    assert (ran.status, ran.out, ran.err) == (3, b"out", b"err"), f"got {ran}"


async def a_command_gets_its_input(target: Target, kit: Kit) -> None:
    data = os.urandom(700_000)
    ran = await target.run(kit.echo, input=data, timeout=TIME)
    assert (ran.status, ran.out) == (0, data), "input came back wrong"
    ran = await target.run(kit.echo, timeout=TIME)
    assert (ran.status, ran.out) == (0, b""), "without input there must be an end"


async def a_command_need_not_read_its_input(target: Target, kit: Kit) -> None:
    ran = await target.run(kit.deaf, input=bytes(3_000_000), timeout=TIME)
    assert ran.status == 0, "a command that ended well counts as well"


async def arguments_arrive_as_they_are(target: Target, kit: Kit) -> None:
    words = ("", " ", "a b", "new\nline", "quote'\"`$HOME$(id);|&", "*", "-n", "é", "\\", "%s")
    ran = await target.run((*kit.words, *words), timeout=TIME)
    assert ran.out == b"".join(word.encode() + b"\0" for word in words), f"got {ran.out!r}"


async def the_environment_is_added_to(target: Target, kit: Kit) -> None:
    value = "a b\n$HOME 'é'"
    ran = await target.run(kit.variable, env={"HYPERBOX_CHECK": value}, timeout=TIME)
    assert ran.out == value.encode(), f"got {ran.out!r}"
    stream = await target.open(kit.variable, env={"HYPERBOX_CHECK": value}, timeout=TIME)
    assert await _all(stream) == value.encode(), "open lost the environment"
    await stream.close()


async def a_signal_is_a_status(target: Target, kit: Kit) -> None:
    if kit.killed is not None:
        ran = await target.run(kit.killed, timeout=TIME)
        assert ran.status == 137, f"got {ran}"


async def a_command_that_takes_too_long_is_ended(target: Target, kit: Kit) -> None:
    began = asyncio.get_running_loop().time()
    assert await _raises(TargetTimeoutError, target.run(kit.hang, timeout=0.3)), "no time limit"
    assert asyncio.get_running_loop().time() - began < 10, "the time limit came late"
    ran = await target.run(kit.speak, timeout=TIME)
    assert ran.status == 3, "the target is of no use after a time limit"


async def a_command_can_be_cancelled(target: Target, kit: Kit) -> None:
    running = asyncio.ensure_future(target.run(kit.hang, timeout=TIME))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait({running}, timeout=10)
    assert running.cancelled(), "a cancelled command goes on"


async def a_missing_program_is_named(target: Target, kit: Kit) -> None:
    for call in (target.run(kit.missing, timeout=TIME), target.run((), timeout=TIME),
                 target.run(("a\0b",), timeout=TIME), target.open((), timeout=TIME)):
        error = await _raises(TargetError, call)
        assert error, "a program that is not there was run"
        assert error.target == target.name, "the error does not name the target"


# -- files ------------------------------------------------------------------------------------


async def a_file_is_put_whole_with_its_mode(target: Target, kit: Kit) -> None:
    path = f"{kit.folder}/deep/er/file.bin"
    for data, mode in ((os.urandom(2_000_000), 0o644), (b"", 0o600), (b"#!/bin/sh\n", 0o755)):
        await target.put(path, data, mode=mode, timeout=TIME)
        shown = await target.run(kit.show(path), timeout=TIME)
        assert (shown.status, shown.out) == (0, data), "the file has other bytes"
        said = await target.run(kit.mode(path), timeout=TIME)
        assert int(said.out, 8) == mode, f"mode {said.out!r}, not {mode:o}"


async def odd_names_are_names(target: Target, kit: Kit) -> None:
    path = f"{kit.folder}/{ODD}"
    await target.put(path, b"odd", timeout=TIME)
    shown = await target.run(kit.show(path), timeout=TIME)
    assert (shown.status, shown.out) == (0, b"odd"), f"got {shown}"


async def readers_never_see_half_a_file(target: Target, kit: Kit) -> None:
    path, size = f"{kit.folder}/swap", 300_000
    whole = {bytes([letter]) * size for letter in b"ab"}
    await target.put(path, b"a" * size, timeout=TIME)

    async def write() -> None:
        for turn in range(12):
            await target.put(path, b"ab"[turn % 2:turn % 2 + 1] * size, timeout=TIME)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        shown = await target.run(kit.show(path), timeout=TIME)
        assert shown.out in whole, f"half a file of {len(shown.out)} bytes was seen"
    await writing


async def what_is_no_place_for_a_file_is_refused(target: Target, kit: Kit) -> None:
    await target.put(f"{kit.folder}/plain", b"x", timeout=TIME)
    for path in ("relative", "", f"{kit.folder}/", f"{kit.folder}/a\0b",
                 f"{kit.folder}/plain/below"):
        assert await _raises(TargetError, target.put(path, b"x", timeout=TIME)), (
            f"{path!r} was written")


# -- ports, and the end -----------------------------------------------------------------------


async def a_port_is_forwarded(target: Target, kit: Kit) -> None:
    forward = await target.forward(await kit.listen(), timeout=TIME)

    async def one(data: bytes) -> None:
        stream = await connect_tcp(*forward.address)
        sending = asyncio.ensure_future(_send(stream, data))
        assert await _all(stream) == data, "a forwarded port changed bytes"
        await sending
        await stream.close()

    await asyncio.gather(*(one(os.urandom(size)) for size in (1, 1000, 800_000, 0)))
    await forward.close()
    await forward.close()


async def a_port_that_is_none_is_refused(target: Target, kit: Kit) -> None:
    for port in (0, -1, 65536):
        assert await _raises(TargetError, target.forward(port, timeout=TIME)), f"port {port}"


async def a_closed_target_refuses_and_has_ended_its_streams(target: Target, kit: Kit) -> None:
    stream = await target.open(kit.echo, timeout=TIME)
    await target.close()
    await target.close()
    assert await _raises(LinkLostError, stream.read()), "a stream outlived its target"
    assert await _raises(TargetError, target.run(kit.speak, timeout=TIME)), "it still runs things"
    assert await _raises(TargetError, target.open(kit.echo, timeout=TIME)), "it still opens"


CHECKS: Sequence[Callable[[Target, Kit], Awaitable[None]]] = (
    a_stream_is_byte_clean_and_ends, large_data_passes_both_ways_at_once, many_streams_do_not_mix,
    errors_do_not_come_on_the_stream, a_closed_stream_refuses,
    writing_to_a_program_that_ended_raises, a_read_that_is_cancelled_loses_nothing,
    a_command_gives_status_and_both_outputs, a_command_gets_its_input,
    a_command_need_not_read_its_input, arguments_arrive_as_they_are, the_environment_is_added_to,
    a_signal_is_a_status, a_command_that_takes_too_long_is_ended, a_command_can_be_cancelled,
    a_missing_program_is_named, a_file_is_put_whole_with_its_mode, odd_names_are_names,
    readers_never_see_half_a_file, what_is_no_place_for_a_file_is_refused, a_port_is_forwarded,
    a_port_that_is_none_is_refused, a_closed_target_refuses_and_has_ended_its_streams,
)


# -- kits -------------------------------------------------------------------------------------


def posix_kit(folder: str, listen: Callable[[], Awaitable[int]]) -> Kit:
    """The commands of anything with a POSIX shell."""
    return Kit(
        folder=folder, echo=("cat",), speak=("sh", "-c", "printf out; printf err >&2; exit 3"),
        words=("sh", "-c", "for word do printf '%s\\0' \"$word\"; done", "sh"),
        variable=("sh", "-c", 'printf %s "$HYPERBOX_CHECK"'), deaf=("true",),
        hang=("sleep", "60"), killed=("sh", "-c", "kill -9 $$"), missing=("no-such-program",),
        show=lambda path: ("cat", "--", path), mode=lambda path: ("stat", "-c", "%a", "--", path),
        listen=listen)


def memory_kit(target: MemoryTarget, port: int = 7) -> Kit:
    """The same commands as programs of the memory target."""
    for program in (_echo, _speak, _words, _variable, _deaf, _hang, _show, _mode):
        target.programs[program.__name__] = program

    async def listen() -> int:
        target.listeners[port] = _copy
        return port

    return Kit(
        folder="/folder", echo=("_echo",), speak=("_speak",), words=("_words",),
        variable=("_variable",), deaf=("_deaf",), hang=("_hang",), killed=None,
        missing=("no-such-program",), show=lambda path: ("_show", path),
        mode=lambda path: ("_mode", path), listen=listen)


async def _copy(stream: ByteStream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def _echo(call: Call, stream: ByteStream) -> None:
    await _copy(stream)


async def _speak(call: Call, stream: ByteStream) -> int:
    call.err += b"err"
    await stream.write(b"out")
    return 3


async def _words(call: Call, stream: ByteStream) -> None:
    await stream.write(b"".join(word.encode() + b"\0" for word in call.argv[1:]))


async def _variable(call: Call, stream: ByteStream) -> None:
    await stream.write(call.env["HYPERBOX_CHECK"].encode())


async def _deaf(call: Call, stream: ByteStream) -> None:
    return


async def _hang(call: Call, stream: ByteStream) -> None:
    await asyncio.sleep(60)


async def _show(call: Call, stream: ByteStream) -> int:
    file = call.target.files.get(call.argv[1])
    if file is not None:
        await stream.write(file.data)
    return int(file is None)


async def _mode(call: Call, stream: ByteStream) -> None:
    await stream.write(b"%o" % call.target.files[call.argv[1]].mode)


# -- small things -----------------------------------------------------------------------------


async def _send(stream: ByteStream, data: bytes) -> None:
    await stream.write(data)
    await stream.end()


async def _all(stream: ByteStream) -> bytes:
    held = []
    while data := await stream.read():
        held.append(data)
    return b"".join(held)


async def _exactly(stream: ByteStream, size: int) -> bytes:
    held = b""
    while len(held) < size:
        data = await stream.read(size - len(held))
        assert data, f"an end after {len(held)} of {size} bytes"
        held += data
    return held


async def _raises(kind: type[E], waiting: Awaitable[object]) -> E | None:
    """The error, None where none came. Any other goes on its way."""
    try:
        await waiting
    except kind as error:
        return error
    return None
