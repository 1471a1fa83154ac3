"""Prints the records of a key: follow.py URL KEY FILE. FILE keeps the cursor. Needs: pip install websockets"""

import asyncio, json, pathlib, random, sys, time, urllib.parse  # noqa: E401
import websockets

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4002, 4003, 4009, 4011, 4012}  # close codes: the same would fail again
AGAIN = {408, 429, 500, 502, 503, 504}  # statuses: no others are worth another attempt


async def follow(url, key, file):
    stored, fresh = pathlib.Path(file), pathlib.Path(file + ".new")
    cursor, attempt = stored.read_text() if stored.exists() else None, 0
    while True:
        wait, silence, begun = 0, 30, time.monotonic()
        start = {"cursor": cursor} if cursor else {"from": "earliest"}
        try:
            async with websockets.connect(f"{url}/v1/ws?{urllib.parse.urlencode({'key': key, **start})}", max_size=None) as ws:
                while True:
                    m = json.loads(await asyncio.wait_for(ws.recv(), silence))
                    silence = 1.5 * m["heartbeat_ms"] / 1000 if m["type"] == "hello" else silence
                    wait = m["retry_after_ms"] / 1000 if m["type"] == "goaway" else wait
                    if m["type"] in ("record", "gap"):
                        print(json.dumps(m), flush=True)  # the effect; the cursor is stored behind it
                    if "cursor" in m and (m["type"] != "hello" or m["resumed"] or not cursor):  # else a gap comes next, and has the cursor
                        cursor = m["cursor"]
                        fresh.write_text(cursor)
                        fresh.replace(stored)
        except websockets.ConnectionClosed as e:
            if e.rcvd and e.rcvd.code in FINAL:
                raise
        except websockets.InvalidStatus as e:
            if e.response.status_code not in AGAIN:
                raise
            wait = float(e.response.headers.get("Retry-After", 0))
        except (OSError, TimeoutError, websockets.InvalidHandshake):
            pass
        attempt = 0 if time.monotonic() - begun > 15 else attempt + 1
        await asyncio.sleep(max(wait, random.uniform(0.5, 1) * min(15, 0.2 * 2 ** min(attempt, 7))))


asyncio.run(follow(*sys.argv[1:]))
