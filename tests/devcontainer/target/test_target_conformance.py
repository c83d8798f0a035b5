from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox_devcontainer.target.base import Target
from hyperbox_devcontainer.target.conformance import (
    CHECKS,
    Kit,
    check_target,
    memory_kit,
    posix_kit,
)
from hyperbox_devcontainer.target.memory import MemoryTarget
from hyperbox_devcontainer.target.process import ProcessTarget

Made = AsyncIterator[tuple[Target, Kit]]


@asynccontextmanager
async def on_memory(folder: Path) -> Made:
    target = MemoryTarget("mem")
    yield target, memory_kit(target)


@asynccontextmanager
async def on_process(folder: Path) -> Made:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    async def listen() -> int:
        return int(server.sockets[0].getsockname()[1])

    yield ProcessTarget("here", os.environ), posix_kit(str(folder / "put"), listen)
    server.close()
    await server.wait_closed()


MAKERS = {"memory": on_memory, "process": on_process}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", MAKERS)
async def test_target(kind: str, check: Callable[..., object], tmp_path: Path) -> None:
    async with MAKERS[kind](tmp_path) as (target, kit):
        try:
            await asyncio.wait_for(check(target, kit), 60)  # type: ignore[arg-type]
        finally:
            await target.close()


async def test_the_whole_suite_runs_as_one_function(tmp_path: Path) -> None:
    await check_target(lambda: on_memory(tmp_path))


async def test_a_target_that_fails_is_named_with_the_check(tmp_path: Path) -> None:
    @asynccontextmanager
    async def broken() -> Made:
        target = MemoryTarget("mem")
        yield target, replace(memory_kit(target), speak=("_deaf",))

    with pytest.raises(AssertionError, match="memory: errors_do_not_come_on_the_stream"):
        await check_target(broken)
