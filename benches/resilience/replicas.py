"""The service: replicas in one process, each of which may be told to be slow or to fail. Started by the driver.

Standard input has commands, one a line: `well`, `slow FACTOR` or `failing SHARE`, and which replicas (`0`, or `0-9`). At its end
everything is over, and standard output gets when each replica was called.
"""

import asyncio
import json
import math
import random
import sys
import time

# What a replica is like when it is well: log-normal service times, so many at once, so many waiting beyond those.
MEDIAN, SPREAD, AT_ONCE, WAITING = 0.010, 0.4, 4, 100


class Replica:
    def __init__(self, index: int, seed: int):
        self.index = index
        self.random = random.Random(f"{seed} {index}")
        self.factor, self.share = 1.0, 0.0
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.in_line = 0
        self.called: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                status, body = await self.answer(path)
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, path: bytes) -> tuple[bytes, bytes]:
        self.called.append(time.monotonic())
        if self.random.random() < self.share or self.in_line >= AT_ONCE + WAITING:
            await asyncio.sleep(0.001)
            return b"503 Service Unavailable", b"failing"
        self.in_line += 1
        try:
            async with self.slots:
                await asyncio.sleep(MEDIAN * self.factor * math.exp(SPREAD * self.random.gauss(0, 1)))
        finally:
            self.in_line -= 1
        return b"200 OK", path

    def become(self, what: str, value: float) -> None:
        self.factor = value if what == "slow" else 1.0
        self.share = value if what == "failing" else 0.0


async def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    replicas = [Replica(index, seed) for index in range(count)]
    servers = [await asyncio.start_server(replica.serve, "127.0.0.1", 0) for replica in replicas]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        what, *value, which = line
        first, _, last = which.partition("-")
        for replica in replicas[int(first) : int(last or first) + 1]:
            replica.become(what, float(value[0]) if value else 0.0)
    print(json.dumps([replica.called for replica in replicas]), flush=True)


asyncio.run(main())
