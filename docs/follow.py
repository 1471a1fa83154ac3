"""Prints the records of a key: follow.py URL KEY FILE. FILE keeps the cursor. Needs: pip install websockets"""

import asyncio, json, pathlib, random, sys, urllib.parse  # noqa: E401
import websockets

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4002, 4003, 4009, 4011, 4012}  # close codes: the same would fail again


async def follow(url, key, cursor):
    attempt = 0
    while True:
        silence, wait = 30, random.uniform(0.5, 1) * min(15, 0.2 * 2**attempt)
        attempt += 1
        start = {"cursor": cursor} if cursor else {"from": "earliest"}
        try:
            async with websockets.connect(f"{url}/v1/ws?{urllib.parse.urlencode({'key': key, **start})}", max_size=None) as ws:
                while True:
                    m = json.loads(await asyncio.wait_for(ws.recv(), silence))
                    if m["type"] == "hello":
                        attempt, silence = 0, 1.5 * m["heartbeat_ms"] / 1000
                    if m["type"] == "goaway":
                        wait = m["retry_after_ms"] / 1000
                    if m["type"] != "hello" or m["resumed"] or not cursor:  # else a gap comes next, and has the cursor
                        cursor = m.get("cursor", cursor)
                    yield m, cursor
        except websockets.ConnectionClosed as e:
            if e.rcvd and e.rcvd.code in FINAL:
                raise
        except (OSError, TimeoutError, websockets.InvalidHandshake) as e:
            if isinstance(e, websockets.InvalidStatus) and e.response.status_code < 500:
                raise
        await asyncio.sleep(wait)


async def main(url, key, file):
    stored, fresh = pathlib.Path(file), pathlib.Path(file + ".new")
    async for m, cursor in follow(url, key, stored.read_text() if stored.exists() else None):
        if m["type"] in ("record", "gap"):
            print(json.dumps(m), flush=True)  # the effect; the cursor is stored behind it
        if cursor:
            fresh.write_text(cursor)
            fresh.replace(stored)


asyncio.run(main(*sys.argv[1:]))
