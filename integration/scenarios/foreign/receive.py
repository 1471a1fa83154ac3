"""Prints every message of a Pointsman router until so many records came: receive.py URL RECORDS."""

import asyncio
import json
import sys

import websockets


async def receive(url: str, records: int) -> None:
    async with websockets.connect(url) as socket:
        async for message in socket:
            print(message, flush=True)
            if json.loads(message)["type"] == "record":
                records -= 1
                if records == 0:
                    return


asyncio.run(receive(sys.argv[1], int(sys.argv[2])))
