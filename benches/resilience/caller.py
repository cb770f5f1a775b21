"""The application that calls: at an even rate, however long answers take; latency counts from when a request was due.

`caller.py PORT HOST RATE SECONDS`; prints when the first request is due, and at the end, as JSON, each request's due time (`time.monotonic`), the seconds that it took, and its
status, or what was wrong with its answer.
"""

import asyncio
import json
import sys
import time

# Nobody waits longer.
PATIENCE = 5.0


class Caller:
    def __init__(self, port: int, host: str):
        self.port, self.host = port, host
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seen: list[tuple[float, float, int | str]] = []

    async def call(self, due: float, number: int) -> None:
        try:
            outcome = await asyncio.wait_for(self.exchange(f"/{number}"), PATIENCE)
        except TimeoutError:
            outcome = "no answer"
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome = type(error).__name__
        self.seen.append((due, time.monotonic() - due, outcome))

    async def exchange(self, path: str) -> int | str:
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\n\r\n".encode())
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        self.idle.append((reader, writer))
        status = int(lines[0].split()[1])
        # Each answer must be that of its own request.
        return "another's answer" if status == 200 and body.decode() != path else status

    async def run(self, rate: float, seconds: float) -> None:
        began = time.monotonic() + 0.05
        print(began, flush=True)
        tasks = set()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self.call(due, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


caller = Caller(int(sys.argv[1]), sys.argv[2])
asyncio.run(caller.run(float(sys.argv[3]), float(sys.argv[4])))
print(json.dumps(caller.seen))
