"""Prints the records of a key: follow.py URL KEY FILE. FILE keeps the cursor. Needs: pip install websockets"""
import asyncio, json, pathlib, random, sys, time, urllib.parse, websockets  # noqa: E401

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4002, 4003, 4009, 4011, 4012}  # close codes: the same would fail again
AGAIN = {408, 429, 500, 502, 503, 504}  # statuses: no others are worth another attempt

async def follow(url, key, file):
    stored, fresh, attempt = pathlib.Path(file), pathlib.Path(file + ".new"), 0
    cursor = stored.read_text() if stored.exists() else None
    while True:
        begun, wait, heartbeat = time.monotonic(), 0, 20_000  # ms, before the router has told its own
        query = urllib.parse.urlencode({"key": key, **({"cursor": cursor} if cursor else {"from": "earliest"})})
        try:
            async with websockets.connect(f"{url}/v1/ws?{query}", max_size=None) as ws:
                while m := json.loads(await asyncio.wait_for(ws.recv(), 1.5 * heartbeat / 1000)):
                    heartbeat, wait = m.get("heartbeat_ms", heartbeat), m.get("retry_after_ms", wait)
                    if m["type"] in ("record", "gap"):
                        print(json.dumps(m), flush=True)  # the effect; the cursor is stored behind it
                    if "cursor" in m and (m["type"] != "hello" or m["resumed"] or not cursor):  # else a gap comes next, and has the cursor
                        fresh.write_text(cursor := m["cursor"])
                        fresh.replace(stored)
        except (OSError, websockets.ConnectionClosed, websockets.InvalidHandshake) as e:  # silence is an OSError, too
            answer, close = getattr(e, "response", None), getattr(e, "rcvd", None)
            if answer and answer.status_code not in AGAIN or close and close.code in FINAL:
                raise
            wait = 1000 * float(answer.headers.get("Retry-After", 0)) if answer else wait
        attempt = 0 if time.monotonic() - begun > 15 else attempt + 1
        await asyncio.sleep(max(wait / 1000, random.uniform(0.5, 1) * min(15, 0.2 * 2 ** min(attempt, 7))))

asyncio.run(follow(*sys.argv[1:]))
