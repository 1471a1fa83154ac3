// Tests of client.js against a socket that the tests play: node --test client.test.mjs
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { connect, PointsmanError } from "./client.js";

// Socket is the client's end of a connection; the test plays the router.
class Socket {
  static made = [];
  static pauses = false;
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, sent: [], closed: false });
    if (Socket.pauses) Object.assign(this, { paused: false, pause: () => { this.paused = true; }, resume: () => { this.paused = false; } });
    Socket.made.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }
  // What the router does:
  open() { this.onopen?.({}); return this; }
  say(m) { this.onmessage?.({ data: JSON.stringify(m) }); return this; }
  hello(cursor = "c0", resumed = true) { return this.open().say({ type: "hello", cursor, key: "alice", resumed, heartbeat_ms: 10_000 }); }
  record(offset, more = {}) { return this.say({ type: "record", cursor: `c${offset}`, partition: 1, offset, value: offset, ...more }); }
  end(code = 1006, reason = "") { this.onclose?.({ code, reason }); }
}

const turn = async () => { for (let i = 0; i < 50; i++) await null; };
const pass = async (ms) => { mock.timers.tick(ms); await turn(); };

let states, network;
function start(options = {}, url = "ws://one") {
  states = [];
  const stream = connect(url, { key: "alice", WebSocket: Socket, network, onState: (s) => states.push(s), ...options });
  return stream;
}
// ask asks for the next record without waiting for it.
function ask(stream) {
  const asked = { done: false };
  asked.promise = stream.next().then((r) => Object.assign(asked, r, { done: true, end: r.done }), (error) => Object.assign(asked, { done: true, error }));
  return asked;
}
async function first(options, url) {
  const stream = start(options, url);
  const asked = ask(stream);
  await turn();
  return { stream, asked, socket: Socket.made.at(-1) };
}
async function taken(stream) {
  const asked = ask(stream);
  await turn();
  assert.ok(asked.done, "nothing is there");
  if (asked.error) throw asked.error;
  return asked.value;
}

beforeEach(() => {
  Socket.made = [];
  Socket.pauses = false;
  network = new EventTarget();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.5);
});
afterEach(() => { mock.timers.reset(); mock.restoreAll(); });

test("nothing is connected before a record is asked for", async () => {
  const stream = start();
  await turn();
  assert.equal(Socket.made.length, 0);
  assert.equal(stream.state, "idle");
});

test("every message becomes what the types say", async () => {
  const gaps = [];
  const { stream, asked, socket } = await first({ onGap: (g) => gaps.push(g) });
  socket.open().say({ type: "waiting" });
  assert.equal(stream.state, "waiting");
  socket.hello("c0");
  socket.record(1, { timestamp: "2026-01-02T03:04:05.006Z", headers: [{ key: "t", text: "x" }, { key: "t" }, { key_b64: "/w==", base64: "/wA=" }], value: { any: ["json"] } });
  socket.say({ type: "of a newer router" });
  socket.record(2, { value: undefined, text: "plain" }).record(3, { value: undefined, base64: "//4=" }).record(4, { value: undefined, tombstone: true, timestamp_ms: -5 });
  socket.say({ type: "gap", cursor: "c5", reason: "retention", partition: 1, from: 5, to: 9 });
  socket.record(9, { value: null });
  await turn();
  assert.deepEqual(asked.value, {
    type: "record", cursor: "c1", key: "alice", partition: 1, offset: 1, timestamp: 1767323045006, format: "json", value: { any: ["json"] }, tombstone: false,
    headers: [{ key: "t", value: "x" }, { key: "t", value: null }, { key: new Uint8Array([255]), value: new Uint8Array([255, 0]) }],
  });
  assert.equal(stream.cursor, "c0", "the program is not done with the record");
  let r = await taken(stream);
  assert.deepEqual([r.format, r.value, r.timestamp, r.headers], ["text", "plain", null, []]);
  assert.equal(stream.cursor, "c1");
  r = await taken(stream);
  assert.deepEqual([r.format, r.value], ["bytes", new Uint8Array([255, 254])]);
  r = await taken(stream);
  assert.deepEqual([r.format, r.value, r.tombstone, r.timestamp], ["none", null, true, -5]);
  assert.equal(gaps.length, 0, "the gap comes in its place");
  r = await taken(stream);
  assert.deepEqual([r.offset, r.format, r.value], [9, "json", null]);
  assert.deepEqual(gaps, [{ type: "gap", cursor: "c5", key: "alice", reason: "retention", partition: 1, from: 5, to: 9 }]);
  assert.equal(stream.cursor, "c5");
  await stream.close();
});

test("the request says what the options say", async () => {
  for (const [options, want, protocols] of [
    [{ key: undefined }, "ws://one/v1/ws"],
    [{ key: "a b", from: "earliest" }, "ws://one/v1/ws?key=a+b&from=earliest"],
    [{ key: new Uint8Array([0xff, 0xfe]), from: 7 }, "ws://one/v1/ws?key_b64=__4&from=7"],
    [{ cursor: "c9", from: "latest" }, "ws://one/v1/ws?key=alice&cursor=c9"],
    [{ cursor: null, token: "a.b.c" }, "ws://one/v1/ws?key=alice", ["pointsman.json.v1", "pointsman.bearer.a.b.c"]],
    [{ token: async () => "d.e.f" }, "ws://one/v1/ws?key=alice", ["pointsman.json.v1", "pointsman.bearer.d.e.f"]],
  ]) {
    const { stream, socket } = await first(options, "http://one/");
    assert.equal(socket.url.href, want);
    assert.deepEqual(socket.protocols, protocols ?? ["pointsman.json.v1"]);
    await stream.close();
    assert.ok(socket.closed);
  }
});

test("a long cursor goes as a message", async () => {
  const cursor = "c".repeat(2000);
  const { stream, socket } = await first({ cursor });
  assert.equal(socket.url.search, "?key=alice&resume=message");
  socket.open();
  assert.deepEqual(socket.sent, [{ type: "resume", cursor }]);
  await stream.close();
});

test("a broken connection is made again with the cursor, at the next URL, and repeats are dropped", async () => {
  const { stream, asked, socket } = await first({}, ["ws://one", "ws://two"]);
  socket.hello().record(1).record(2);
  await turn();
  socket.end(1006);
  await turn();
  assert.equal(asked.value.offset, 1);
  await pass(99);
  assert.equal(Socket.made.length, 1, "it waits: half of the least back-off");
  await pass(1);
  const again = Socket.made[1];
  assert.equal(again.url.host, "two");
  assert.equal(again.url.searchParams.get("cursor"), "c2", "of what was received, taken or not");
  again.hello("c2").record(2).record(3);
  assert.equal((await taken(stream)).offset, 2);
  assert.equal((await taken(stream)).offset, 3);
  assert.equal(stream.stats.repeats, 1);
  assert.equal(stream.stats.lost, 1);
  await stream.close();
});

test("waits grow to the most and begin anew after a connection that lived", async () => {
  const { stream } = await first();
  const waits = [];
  for (let i = 0; i < 10; i++) {
    Socket.made.at(-1).end();
    await turn();
    waits.push(states.at(-1).wait);
    await pass(states.at(-1).wait);
  }
  assert.deepEqual(waits, [100, 300, 600, 1200, 2400, 4800, 9600, 11250, 11250, 11250]);
  Socket.made.at(-1).hello();
  mock.timers.tick(14_000);
  Socket.made.at(-1).say({ type: "checkpoint", cursor: "c1" });
  mock.timers.tick(1_000);
  Socket.made.at(-1).end();
  await turn();
  assert.equal(states.at(-1).wait, 100);
  await stream.close();
});

test("goaway is obeyed", async () => {
  const { stream, socket } = await first();
  socket.hello().say({ type: "goaway", cursor: "c0", retry_after_ms: 1200 });
  socket.end(1001);
  await turn();
  assert.equal(states.at(-1).wait, 1200);
  await stream.close();
});

test("codes that do not ask for another try end the stream, behind what was received", async () => {
  const { stream, asked, socket } = await first();
  socket.hello().record(1).record(2);
  socket.end(4009, "for another key");
  await turn();
  assert.equal(asked.value.offset, 1);
  assert.equal((await taken(stream)).offset, 2);
  await assert.rejects(stream.next(), (e) => e instanceof PointsmanError && e.code === 4009 && !e.retry && /credentials_refused.*for another key/.test(e.message));
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
  assert.equal(stream.cursor, "c2");
});

test("an unknown code, and one that is missing, ask for another try", async () => {
  for (const code of [4999, 1005]) {
    const { stream, socket } = await first();
    socket.hello().end(code);
    await turn();
    assert.equal(stream.state, "retrying");
    await stream.close();
  }
});

test("silence for longer than the heartbeat allows ends a connection", async () => {
  const { stream, socket } = await first();
  socket.hello();
  await pass(14_000);
  socket.say({ type: "checkpoint", cursor: "c1" });
  await pass(1_000);
  await pass(13_999);
  assert.equal(stream.state, "open");
  await pass(1);
  assert.equal(stream.state, "retrying");
  assert.match(states.at(-1).error.message, /heartbeat/);
  assert.equal(stream.cursor, "c1");
  // Should the next message be too large for the line, the next connection is given longer.
  await pass(100);
  Socket.made[1].hello("c1");
  await pass(15_000);
  assert.equal(stream.state, "open");
  await pass(15_000);
  assert.equal(stream.state, "retrying");
  await stream.close();
});

test("a program that stood still itself hears first what came meanwhile", async () => {
  const { stream, socket } = await first();
  socket.hello();
  const at = Date.now() + 60_000;
  mock.method(Date, "now", () => at); // the timer is late
  await pass(15_000);
  assert.equal(stream.state, "open");
  await stream.close();
});

test("an attempt that is not answered is given up", async () => {
  const { stream, socket } = await first();
  await pass(10_000);
  assert.ok(socket.closed);
  assert.equal(stream.state, "retrying");
  await stream.close();
});

test("maxAttempts ends a stream that makes no connection", async () => {
  const { stream, asked } = await first({ maxAttempts: 2 });
  Socket.made[0].end();
  await turn();
  await pass(100);
  Socket.made[1].end();
  await turn();
  assert.match(asked.error.message, /away or refuses/);
  assert.equal(stream.state, "closed");
});

test("a program that does not keep up bounds what waits: closed, taken, resumed behind it", async () => {
  const { stream, socket } = await first({ maxQueue: 8 });
  socket.hello();
  for (let i = 1; i <= 20; i++) socket.record(i);
  await turn();
  assert.ok(socket.closed);
  assert.equal(stream.state, "paused");
  const got = [];
  for (;;) {
    got.push((await taken(stream)).offset);
    await pass(0);
    if (Socket.made.length === 2) break;
  }
  const cursor = Socket.made[1].url.searchParams.get("cursor");
  Socket.made[1].hello(cursor);
  for (let i = Number(cursor.slice(1)) + 1; i <= 11; i++) Socket.made[1].record(i);
  while (got.length < 10) got.push((await taken(stream)).offset);
  assert.deepEqual(got, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  assert.equal(stream.stats.repeats, 0);
  assert.equal(stream.stats.lost, 0);
  await stream.close();
});

test("characters bound what waits, too, and a socket that can pause is paused", async () => {
  Socket.pauses = true;
  const { stream, socket } = await first({ maxQueueSize: 1000 });
  socket.hello().record(1);
  await turn();
  socket.record(2, { value: "x".repeat(900) }).record(3);
  assert.ok(socket.paused && !socket.closed);
  await pass(60_000);
  assert.ok(!socket.closed, "whoever does not listen cannot call it silence");
  assert.equal((await taken(stream)).offset, 2);
  assert.ok(!socket.paused);
  await pass(14_999);
  assert.ok(!socket.closed);
  await pass(1);
  assert.ok(socket.closed);
  await stream.close();
});

test("a connection that ended while it was paused leaves the next one its bound", async () => {
  Socket.pauses = true;
  const { stream, socket } = await first({ maxQueue: 10 });
  socket.hello();
  for (let i = 1; i <= 11; i++) socket.record(i);
  await turn();
  assert.ok(socket.paused);
  socket.end();
  await turn();
  await pass(100);
  const again = Socket.made[1].hello("c11").record(12);
  assert.ok(again.paused);
  for (let i = 2; i < 12; i++) await taken(stream);
  assert.ok(!again.paused);
  await stream.close();
});

test("no timer outlives a stream that waits for a token", async () => {
  const live = new Set();
  for (const ends of ["abort", "socket"]) {
    const abort = new AbortController();
    const { setTimeout, clearTimeout } = globalThis;
    globalThis.setTimeout = (f, ms) => {
      const id = setTimeout(() => { live.delete(id); f(); }, ms);
      live.add(id);
      return id;
    };
    globalThis.clearTimeout = (id) => { live.delete(id); clearTimeout(id); };
    try {
      const { stream, asked, socket } = await first({ signal: abort.signal, token: async (why) => { if (why === "expiring") throw new Error("the issuer is away"); return "t"; } });
      socket.hello().say({ type: "expiring", expires_in_ms: 60_000 });
      await turn();
      assert.equal(live.size, 2, "its own and that of the connection");
      if (ends === "abort") abort.abort(new Error("enough"));
      else socket.end(4009);
      await turn();
      assert.ok(asked.done);
      assert.equal(live.size, 0, ends);
      await stream.close();
    } finally {
      Object.assign(globalThis, { setTimeout, clearTimeout });
    }
  }
});

test("tokens are asked for before each connection and when the router says so", async () => {
  const asked = [];
  let fail = false;
  const { stream, socket } = await first({
    token: async (why) => {
      asked.push(why);
      if (fail) { fail = false; throw new Error("the issuer is away"); }
      return `t${asked.length}`;
    },
  });
  socket.hello();
  fail = true;
  socket.say({ type: "expiring", expires_in_ms: 60_000 });
  await turn();
  assert.deepEqual(socket.sent, []);
  await pass(100);
  assert.deepEqual(socket.sent, [{ type: "auth", token: "t3" }]);
  socket.end(4008);
  await turn();
  await pass(100);
  assert.deepEqual(Socket.made[1].protocols, ["pointsman.json.v1", "pointsman.bearer.t4"]);
  assert.deepEqual(asked, ["connect", "expiring", "expiring", "connect"]);
  assert.equal(stream.stats.renewals, 1);
  await stream.close();
});

test("a refusal that a socket tells of ends the stream; a token that was refused is tried anew once", async () => {
  for (const [status, token, tries] of [[403, undefined, 1], [401, "fixed", 1], [401, () => "old", 2], [503, undefined, 3]]) {
    Socket.made = [];
    const { stream, asked } = await first({ token });
    for (let i = 0; i < 3 && !asked.done; i++) {
      Socket.made.at(-1).onerror?.({ message: `Unexpected server response: ${status}` });
      Socket.made.at(-1).end();
      await turn();
      if (!asked.done) await pass(states.at(-1).wait);
    }
    assert.equal(Math.min(Socket.made.length, 3), tries, `status ${status}`);
    if (status !== 503) assert.equal(asked.error.status, status);
    await stream.close();
  }
});

test("the network's return cuts a wait short and ends a connection that was not heard since it went", async () => {
  const { stream, socket } = await first();
  socket.hello();
  network.dispatchEvent(new Event("offline"));
  await pass(1_000);
  socket.say({ type: "checkpoint", cursor: "c1" }); // it was not away for this router
  network.dispatchEvent(new Event("online"));
  assert.equal(stream.state, "open");
  await pass(1_000);
  network.dispatchEvent(new Event("offline"));
  await pass(1_000);
  network.dispatchEvent(new Event("online"));
  await turn();
  assert.equal(stream.state, "retrying");
  network.dispatchEvent(new Event("online"));
  await turn();
  assert.equal(Socket.made.length, 2);
  await stream.close();
});

test("storage is loaded, saved at a bounded rate, and at the end", async () => {
  const saved = [];
  const storage = { load: async () => "c1", save: async (c) => { saved.push(c); } };
  const { stream, socket } = await first({ storage });
  assert.equal(socket.url.searchParams.get("cursor"), "c1");
  socket.hello("c1");
  for (let i = 2; i < 10; i++) socket.record(i);
  for (let i = 0; i < 5; i++) await taken(stream);
  assert.deepEqual(saved, []);
  await pass(1_000);
  assert.deepEqual(saved, ["c6"], "offset 7 is still with the program");
  await taken(stream);
  network.dispatchEvent(new Event("pagehide"));
  assert.deepEqual(saved, ["c6", "c7"]);
  stream.commit();
  await stream.return();
  assert.deepEqual(saved, ["c6", "c7", "c8"]);
});

test("a save that fails is made up for", async () => {
  let fail = true;
  const saved = [];
  const { stream, socket } = await first({ storage: { load: () => null, save: async (c) => { if (fail) throw new Error("full"); saved.push(c); } } });
  socket.hello().record(1).record(2);
  await turn();
  await taken(stream);
  await pass(1_000);
  assert.equal(stream.stats.saveErrors, 1);
  fail = false;
  stream.commit();
  await pass(1_000);
  assert.deepEqual(saved, ["c2"]);
  await stream.close();
});

test("a slow save does not undo those behind it", async () => {
  let stored;
  const slow = [];
  const storage = { load: () => null, save: (c) => new Promise((resolve) => { slow.push({ c, end: async () => { stored = c; resolve(); await turn(); } }); }) };
  const { stream, socket } = await first({ storage });
  socket.hello();
  for (let i = 1; i < 12; i++) socket.record(i);
  await turn();
  await taken(stream);
  await pass(1_000);
  for (let i = 3; i < 11; i++) await taken(stream);
  await pass(1_000);
  assert.deepEqual(slow.map(({ c }) => c), ["c1"], "it is saved behind the first");
  await slow[0].end();
  assert.deepEqual(slow.map(({ c }) => c), ["c1", "c9"]);

  stream.commit();
  network.dispatchEvent(new Event("pagehide")); // has no later
  assert.deepEqual(slow.map(({ c }) => c), ["c1", "c9", "c10"]);
  await slow[2].end();
  await slow[1].end();
  assert.equal(stored, "c9", "it was the last to be kept");
  await slow[3].end();
  assert.equal(stored, "c10", "and is made good where there is a later");

  await taken(stream);
  stream.commit();
  let closed = false;
  stream.close().then(() => { closed = true; });
  await turn();
  assert.ok(!closed);
  await slow[4].end();
  assert.equal(stored, "c11");
  assert.ok(closed);
});

test("break, abort and close end the connection", async () => {
  let stream = start();
  const loop = (async () => { for await (const r of stream) if (r.offset === 2) break; })();
  await turn();
  Socket.made[0].hello().record(1).record(2).record(3);
  await loop;
  assert.ok(Socket.made[0].closed);
  assert.equal(stream.cursor, "c1", "the record that the loop was left at may not be done with");

  const abort = new AbortController();
  const { asked } = await first({ signal: abort.signal });
  Socket.made.at(-1).hello();
  abort.abort(new Error("enough"));
  await turn();
  assert.equal(asked.error.message, "enough");
  assert.ok(Socket.made.at(-1).closed);
  await assert.rejects(start({ signal: abort.signal }).next(), /enough/);

  const other = await first();
  other.socket.end();
  await turn();
  await other.stream.close(); // while it waits for another attempt
  await turn();
  assert.equal(other.asked.end, true);
  assert.equal(states.at(-1).state, "closed");
});

test("what a callback throws is thrown to whoever iterates", async () => {
  const a = await first({ onGap: () => { throw new Error("no gaps here"); } });
  a.socket.hello().say({ type: "gap", cursor: "c5", reason: "topic", partition: 1, to: 0 });
  await turn();
  assert.equal(a.asked.error.message, "no gaps here");
  assert.ok(a.socket.closed);
  const b = await first({ onState: () => { throw new Error("no states here"); } });
  assert.equal(b.asked.error.message, "no states here");
});

test("a gap that was not heard is asked for again, and offsets that begin anew are no repeats", async () => {
  const { stream, asked, socket } = await first({ cursor: "old" });
  socket.hello("behind", false).end();
  await turn();
  await pass(100);
  assert.equal(Socket.made[1].url.searchParams.get("cursor"), "old");
  Socket.made[1].hello("behind", false).record(7).say({ type: "gap", cursor: "c0", reason: "topic", partition: 1, to: 0 }).record(0);
  await turn();
  assert.equal(asked.value.offset, 7);
  assert.equal((await taken(stream)).offset, 0);
  await stream.close();
});

test("with several keys each goes on where it stopped", async () => {
  const heard = [];
  const { stream, asked, socket } = await first({ key: undefined, keys: ["alice", "bob"], from: "earliest", onKey: (m) => heard.push(`${m.type} ${m.key}`) });
  assert.equal(socket.url.search, "?several=true&key=alice&key=bob&from=earliest");
  socket.open().say({ type: "hello", keys: 2, heartbeat_ms: 10_000 });
  socket.say({ type: "subscribed", key: "alice", cursor: "a0", resumed: false }).say({ type: "subscribed", key: "bob", cursor: "b0", resumed: false });
  socket.record(7, { key: "alice", cursor: "a8" }).record(3, { key: "bob", cursor: "b4" });
  await turn();
  assert.equal(asked.value.key, "alice");
  assert.equal(stream.cursor, "a0.b0");
  assert.equal((await taken(stream)).key, "bob");
  assert.equal(stream.cursor, "a8.b0");
  assert.deepEqual(heard, ["subscribed alice", "subscribed bob"]);

  stream.subscribe("carol", { from: "latest" });
  stream.subscribe(new Uint8Array([0xff]), { cursor: "x1" });
  stream.unsubscribe("bob");
  assert.deepEqual(socket.sent, [
    { type: "subscribe", key: "carol", from: "latest" }, { type: "subscribe", key_b64: "_w", cursor: "x1" }, { type: "unsubscribe", key: "bob" },
  ]);
  socket.say({ type: "subscribed", key_b64: "/w==", cursor: "x2", resumed: true }).say({ type: "unsubscribed", key: "bob", cursor: "b4" });
  socket.end();
  await turn();
  await pass(100);
  const again = Socket.made[1]; // carol was not granted yet: she is asked for once more
  assert.deepEqual(again.url.searchParams.getAll("key_b64"), ["YWxpY2U", "_w"]);
  assert.equal(again.url.searchParams.get("cursor"), "a8.x2");
  again.open().say({ type: "hello", keys: 2, heartbeat_ms: 10_000 });
  assert.deepEqual(again.sent, [{ type: "subscribe", key: "carol", from: "latest" }]);
  again.say({ type: "refused", of: "subscribe", key: "carol", reason: "too_many", detail: "enough" });
  // A gap that was not heard is asked for again.
  again.say({ type: "subscribed", key: "alice", cursor: "a20", resumed: false });
  again.record(7, { key: "alice", cursor: "a8" }).say({ type: "checkpoint", cursor: "all" }).record(8, { key: "alice", cursor: "a9" });
  assert.equal((await taken(stream)).offset, 8);
  assert.equal(stream.cursor, "all");
  assert.equal(stream.stats.repeats, 1);
  again.end();
  await turn();
  await pass(300);
  assert.equal(Socket.made[2].url.searchParams.get("cursor"), "all.a9");
  Socket.made[2].open().say({ type: "hello", keys: 2, heartbeat_ms: 10_000 });
  assert.deepEqual(Socket.made[2].sent, []);
  await stream.close();
  assert.throws(() => start().subscribe("bob"), /options.keys/);
});

const several = (socket) => socket.open().say({ type: "hello", keys: 2, heartbeat_ms: 10_000 });

test("many keys are asked for at a pace that routers allow", async () => {
  const keys = Array.from({ length: 120 }, (_, i) => `k${i}`);
  const { stream, socket } = await first({ key: undefined, keys: ["first"] });
  several(socket).say({ type: "subscribed", key: "first", cursor: "f0", resumed: false });
  for (const key of keys) stream.subscribe(key);
  assert.equal(socket.sent.length, 50);
  await pass(1_000);
  assert.ok(socket.sent.length >= 59 && socket.sent.length <= 61, `${socket.sent.length} after a second`);
  for (let i = 0; i < 10; i++) await pass(1_000);
  assert.deepEqual(socket.sent.map((m) => m.key), keys);
});

test("of wishes that wait the last word about each key goes out, and no other is answered for it", async () => {
  const { stream, socket } = await first({ key: undefined, keys: ["first"], maxBackoff: 1000 });
  several(socket).say({ type: "subscribed", key: "first", cursor: "f0", resumed: false });
  stream.subscribe("k", { cursor: "old" });
  for (let i = 0; i < 49; i++) stream.subscribe(`other${i}`);
  for (let i = 0; i < 1000; i++) {
    stream.unsubscribe("k");
    stream.subscribe("k", { from: "earliest" });
  }
  socket.say({ type: "subscribed", key: "k", cursor: "k1", resumed: true }); // of the first wish
  const asked = ask(stream);
  socket.end();
  await turn();
  await pass(60_000);
  const again = Socket.made.at(-1);
  assert.notEqual(again, socket);
  assert.equal(socket.sent.length, 50);
  several(again);
  assert.deepEqual(again.sent.find((m) => m.key === "k"), { type: "subscribe", key: "k", from: "earliest" });
  for (let i = 0; i < 10; i++) await pass(1_000);
  assert.equal(again.sent.length, 50);
  stream.unsubscribe("k");
  stream.subscribe("k", { from: "latest" });
  assert.deepEqual(again.sent.slice(50).map((m) => m.type), ["unsubscribe", "subscribe"]);
  await stream.close();
  await asked.promise;
});

test("a key that is followed again begins where the program wants it to", async () => {
  for (const answered of [true, false]) { // or the connection ends before the router says that it is unsubscribed
    const { stream, asked, socket } = await first({ key: undefined, keys: ["a", "b"] });
    several(socket).say({ type: "subscribed", key: "a", cursor: "a0", resumed: false });
    for (let i = 0; i < 3; i++) socket.record(i, { key: "a", cursor: `a${i + 1}` });
    await turn();
    assert.equal(asked.value.offset, 0);
    assert.equal((await taken(stream)).offset, 1);
    assert.equal((await taken(stream)).offset, 2);
    stream.unsubscribe("a");
    if (answered) socket.say({ type: "unsubscribed", key: "a", cursor: "a3" });
    stream.subscribe("a", { from: "earliest" });
    let at = socket;
    if (!answered) {
      socket.end();
      await turn();
      await pass(100);
      at = several(Socket.made.at(-1));
      assert.deepEqual(at.sent, [{ type: "subscribe", key: "a", from: "earliest" }]);
    }
    at.say({ type: "subscribed", key: "a", cursor: "a0", resumed: false });
    for (let i = 0; i < 4; i++) at.record(i, { key: "a", cursor: `a${i + 1}` });
    for (let i = 0; i < 4; i++) assert.equal((await taken(stream)).offset, i);
    assert.equal(stream.stats.repeats, 0);
    await stream.close();
  }
});

test("only keys that are wanted are followed", async () => {
  const { stream, socket } = await first({ key: undefined, keys: ["a"], cursor: "A0" });
  several(socket).say({ type: "subscribed", key: "a", cursor: "A0", resumed: true });
  stream.unsubscribe("a");
  stream.subscribe("b", { from: "earliest" });
  socket.end();
  await turn();
  await pass(100);
  const again = Socket.made[1]; // without several=none it would follow all keys of the token
  assert.equal(again.url.search, "?several=none");
  several(again);
  assert.deepEqual(again.sent, [{ type: "subscribe", key: "b", from: "earliest" }]);
  again.say({ type: "subscribed", key: "b", cursor: "B0", resumed: false }).end();
  await turn();
  await pass(300);
  assert.equal(Socket.made[2].url.search, "?several=true&key=b&cursor=A0.B0");
  await stream.close();
});

test("the keys of a token are followed until the program takes one away", async () => {
  const { stream, socket } = await first({ key: undefined, keys: [] });
  assert.equal(socket.url.search, "?several=true");
  const greet = (s) => several(s).say({ type: "subscribed", key: "a", cursor: "A0", resumed: false }).say({ type: "subscribed", key: "b", cursor: "B0", resumed: false });
  greet(socket).end();
  await turn();
  await pass(100);
  assert.equal(Socket.made[1].url.search, "?several=true&cursor=A0.B0");
  greet(Socket.made[1]);
  stream.unsubscribe("a");
  assert.deepEqual(Socket.made[1].sent, [{ type: "unsubscribe", key: "a" }]);
  Socket.made[1].say({ type: "unsubscribed", key: "a", cursor: "A0" }).end();
  await turn();
  await pass(300);
  assert.equal(Socket.made[2].url.search, "?several=true&key=b&cursor=B0");
  await stream.close();
});

test("a gap of one of several keys that was not heard is asked for again after a stored cursor, and after one of a subscribe", async () => {
  const { stream, socket } = await first({ key: undefined, keys: ["a", "b"], cursor: "STORED" });
  several(socket).say({ type: "subscribed", key: "a", cursor: "A9", resumed: false });
  stream.subscribe("c", { cursor: "C1" });
  socket.say({ type: "subscribed", key: "c", cursor: "C9", resumed: false }).end();
  await turn();
  await pass(100);
  // STORED counts if it names the key; A9 if it does not.
  assert.equal(Socket.made[1].url.searchParams.get("cursor"), "A9.STORED.C1");
  several(Socket.made[1]).say({ type: "subscribed", key: "a", cursor: "A9", resumed: false }).say({ type: "gap", key: "a", cursor: "ALL", reason: "retention", partition: 1, to: 9 }).end();
  await turn();
  await pass(300);
  assert.equal(Socket.made[2].url.searchParams.get("cursor"), "ALL");
  await stream.close();
});

test("a message that cannot be read ends the connection", async () => {
  const { stream, socket } = await first();
  socket.hello();
  socket.onmessage({ data: "{" });
  await turn();
  assert.ok(socket.closed);
  assert.match(states.at(-1).error.message, /cannot be read/);
  await stream.close();
});

test("options that cannot work are refused at once", () => {
  assert.throws(() => connect("ftp://one", { WebSocket: Socket }), TypeError);
  assert.throws(() => connect([], { WebSocket: Socket }), TypeError);
  assert.throws(() => connect("ws://one", { WebSocket: null }), /Node 22/);
});
