// Receives the records of a client key from Pointsman's routers, over as many connections as it takes:
//
//   for await (const record of connect("wss://example.com", { key: "alice", storage })) show(record.value);
//
// For browsers and Node 18 or newer, without dependencies. README.md beside this file explains every option;
// docs/protocol.md in the repository is what it speaks.

const path = "/v1/ws";
const subprotocol = "pointsman.json.v1";
const bearer = "pointsman.bearer.";
const firstSilence = 30_000; // ms, before the router has announced its heartbeat
const patience = 1.5; // heartbeats
const mostPatience = 24;
const standstill = 1_000; // ms by which a timer is late when this program, and not the router, stood still
const grace = 2_000; // ms for what arrived meanwhile to be heard
const longCursor = 1_500; // above, it goes as a message: proxies bound request lines

/** What the router's close codes mean, and whether to connect again. Unknown codes ask for it: a router may be newer. */
export const closeCodes = Object.freeze({
  1000: { name: "normal", retry: false },
  1001: { name: "going_away", retry: true },
  1002: { name: "protocol_error", retry: false },
  1003: { name: "unsupported_data", retry: false },
  1006: { name: "abnormal", retry: true },
  1007: { name: "invalid_data", retry: false },
  1008: { name: "policy", retry: false },
  1009: { name: "too_big", retry: false },
  1011: { name: "internal", retry: true },
  1012: { name: "service_restart", retry: true },
  1013: { name: "try_again_later", retry: true },
  4000: { name: "bad_cursor", retry: false },
  4001: { name: "bad_request", retry: false },
  4002: { name: "foreign_cursor", retry: false },
  4003: { name: "raw_gap", retry: false },
  4004: { name: "slow_client", retry: true },
  4005: { name: "shed", retry: true },
  4006: { name: "dead_peer", retry: true },
  4007: { name: "control_timeout", retry: true },
  4008: { name: "credentials_expired", retry: true },
  4009: { name: "credentials_refused", retry: false },
  4010: { name: "topic_changed", retry: true },
  4011: { name: "replaced", retry: false },
  4012: { name: "too_many_messages", retry: false },
});

/** Why a connection ended or could not be made. code is a close code, status an HTTP status; 0 for none. */
export class PointsmanError extends Error {
  constructor(message, { code = 0, status = 0, reason = "", retry = true, retryAfter = 0, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    Object.assign(this, { name: "PointsmanError", code, status, reason, retry, retryAfter });
  }
}

/** Makes a stream of records. It connects when the first record is asked for. */
export function connect(url, options = {}) {
  return new Stream(url, options);
}

// Place is a cursor. With several keys on the socket it is one of all of them, and behind it those of single keys, which
// are newer: of a list joined with dots the last one that names a key counts. So those before it are for the keys that
// it does not name; which these are its opaque text does not tell.
class Place {
  constructor(all) {
    this.all = all;
    this.floor = new Map(); // name of a key -> cursor
    this.single = new Map(); // name of a key -> cursor
  }

  move({ cursor, name, floor }) {
    if (!cursor) return;
    if (name === undefined) Object.assign(this, new Place(cursor));
    else if (!floor) this.single.set(name, cursor);
    else if (!this.single.has(name)) (this.all ? this.floor : this.single).set(name, cursor);
  }

  forget(name) {
    this.floor.delete(name);
    this.single.delete(name);
  }

  get text() { return [...this.floor.values(), this.all, ...this.single.values()].filter(Boolean).join(".") || undefined; }
}

// Position is what was received: where to reconnect, and what lies below it.
class Position {
  constructor(cursor) {
    this.place = new Place(cursor);
    this.next = new Map(); // partition and key -> the lowest offset that is new
  }

  // take applies a message: the move of the cursor that it means, and whether it repeats a record. wish is what a
  // subscribed answers, if it was asked for by message.
  take(m, asked, wish) {
    const move = this.#judge(m, asked, wish);
    this.place.move(move);
    return move;
  }

  // keep forgets the keys that are no longer followed: the router's answer to that may be lost with its connection.
  keep(followed) {
    for (const name of [...this.place.floor.keys(), ...this.place.single.keys()]) if (!followed(name)) this.#forget(name);
  }

  // forget lets a key begin again wherever the program wants it to.
  #forget(name) {
    this.place.forget(name);
    for (const feed of this.next.keys()) if (feed.slice(feed.indexOf(" ") + 1) === name) this.next.delete(feed);
  }

  #judge(m, asked, wish) {
    const { cursor } = m;
    const name = nameOf(m);
    switch (m.type) {
      case "record": {
        const feed = `${m.partition} ${name ?? ""}`;
        if (m.offset < this.next.get(feed)) return { repeat: true };
        this.next.set(feed, m.offset + 1);
        return { cursor, name }; // with several keys it is that of one of them
      }
      case "subscribed": // with several keys, in place of hello
        if (wish) {
          this.#forget(name);
          return { cursor: m.resumed === false && wish.cursor || cursor, name };
        }
        // As with hello the gap that follows moves the cursor. A key that had none yet has no gap to come.
        return { cursor, name, floor: m.resumed === false };
      case "unsubscribed":
        this.#forget(name);
        return {};
      case "hello":
        // The gap that follows moves the cursor. Should the connection break before it, the next one must be
        // told of the gap again.
        if (asked && !m.resumed) return {};
        break;
      case "gap": // after these two, offsets come a second time and are other records
        if (m.reason === "topic") {
          if (name === undefined) this.next.clear();
          for (const feed of this.next.keys()) if (feed.slice(feed.indexOf(" ") + 1) === name) this.next.delete(feed);
        }
        if (m.reason === "truncated") {
          for (const [feed, next] of this.next) {
            if (name === undefined ? feed.startsWith(`${m.partition} `) : feed === `${m.partition} ${name}`) this.next.set(feed, Math.min(next, m.to));
          }
        }
    }
    return { cursor };
  }
}

// nameOf tells keys apart; undefined where a message names none, as with a single key.
function nameOf({ key, key_b64 }) {
  return key !== undefined ? `t${key}` : key_b64 !== undefined ? `b${urlSafe(key_b64)}` : undefined;
}

class Stream {
  #urls;
  #options;
  #position; // of what was received
  #done; // the place behind what the program is done with
  #wanted = null; // with several keys: name -> {key, wish}; a wish is asked for by message, and null once it was granted
  #every = false; // all keys of the token, or none yet: the program has neither named one nor taken one away
  #wishes = null; // of a connection that is greeted
  #retry = null; // ends the wait before a token is asked for again
  #queue = []; // {record}, {gap} or {} (a checkpoint), each with the move that it means and its size
  #size = 0; // of all that is queued, in characters of JSON
  #current = null; // the record that the program has
  #turns = Promise.resolve(); // calls of next, one after the other
  #started = false;
  #over = null; // {error} once the stream has ended; error undefined for an end in order
  #state = "idle";
  #key;
  #patience = patience;
  #doubted = false; // the last token was refused as too old, perhaps
  #wake = null; // next waits
  #rouse = null; // a wait before an attempt can be cut short
  #room = null; // the queue was full; called when it no longer is
  #hang = null; // ends the connection
  #online = null; // the network is back: is the connection?
  #saving = Promise.resolve();
  #slow = 0; // saves that are under way
  #late = false; // there is more to save behind them
  #saved;
  #saveTimer = null;
  #tidy = [];

  constructor(url, options) {
    const defaults = {
      from: undefined, minBackoff: 200, maxBackoff: 15_000, connectTimeout: 10_000, maxAttempts: Infinity,
      maxQueue: 1_000, maxQueueSize: 8 << 20, saveEvery: 1_000, parse: JSON.parse,
      WebSocket: globalThis.WebSocket, network: typeof globalThis.addEventListener === "function" ? globalThis : null,
    };
    for (const name of Object.keys(options)) if (options[name] === undefined) options = without(options, name);
    this.#options = { ...defaults, ...options };
    if (typeof this.#options.WebSocket !== "function") {
      throw new TypeError("there is no global WebSocket before Node 22: pass one as options.WebSocket, for instance that of the package ws");
    }
    this.#urls = (Array.isArray(url) ? url : [url]).map((u) => complete(u, this.#options.key));
    if (this.#urls.length === 0) throw new TypeError("no URL of a router is given");
    if (this.#options.keys) {
      this.#wanted = new Map();
      this.#every = this.#options.keys.length === 0;
      for (const key of this.#options.keys) this.#wanted.set(nameOf(spelled(key)), { key, wish: null });
    }
    this.#done = new Place(this.#options.cursor || undefined);
    this.stats = { connections: 0, lost: 0, records: 0, repeats: 0, gaps: 0, renewals: 0, pauses: 0, saveErrors: 0 };
  }

  /** Where another client would continue: behind the last record that the program is done with. */
  get cursor() { return this.#done.text; }

  /** What the stream does at the moment; options.onState hears of changes. */
  get state() { return this.#state; }

  [Symbol.asyncIterator]() { return this; }

  /** The next record. Whoever asks for it is done with the one before. */
  next() {
    const turn = this.#turns.then(() => this.#next());
    this.#turns = turn.catch(() => {});
    return turn;
  }

  /** Says that the program is done with the record it has, without asking for another. */
  commit() {
    if (this.#current === null) return;
    const { move } = this.#current;
    this.#current = null;
    this.#moved(move);
  }

  /** Follows a key more, with options.keys; from its cursor, or where from says. */
  subscribe(key, { cursor, from } = {}) {
    if (!this.#wanted) throw new TypeError("a stream of one key has no others: connect with options.keys");
    const wish = { type: "subscribe", ...spelled(key), cursor, from: from === undefined ? undefined : String(from) };
    this.#every = false;
    if (this.#wanted.get(nameOf(wish))?.wish !== null) this.#wanted.set(nameOf(wish), { key, wish }); // else it goes on where it is
    this.#wishes?.add(wish);
  }

  /** Follows a key less. */
  unsubscribe(key) {
    const m = { type: "unsubscribe", ...spelled(key) };
    if (!this.#wanted?.delete(nameOf(m))) return;
    this.#every = false;
    this.#wishes?.add(m);
  }

  /** Ends the stream: iteration ends, and storage has the cursor when the promise is kept. */
  async close() {
    this.#finish();
    await this.#settled();
  }

  /** What for await calls when it is left; the record it had is not done with unless commit says so. */
  async return(value) {
    await this.close();
    return { value, done: true };
  }

  async #next() {
    this.commit();
    if (!this.#started) this.#start();
    for (;;) {
      if (this.#queue.length > 0) {
        const item = this.#queue.shift();
        this.#size -= item.size;
        if (this.#room && this.#queue.length <= this.#options.maxQueue / 4 && this.#size <= this.#options.maxQueueSize / 4) {
          const room = this.#room;
          this.#room = null;
          room();
        }
        if (item.record) {
          this.#current = item;
          this.stats.records++;
          return { value: item.record, done: false };
        }
        if (item.gap) {
          this.stats.gaps++;
          try {
            await this.#options.onGap?.(item.gap);
          } catch (error) {
            this.#finish(error);
            throw error;
          }
        }
        this.#moved(item.move);
      } else if (this.#over) {
        const { error } = this.#over;
        this.#over = {}; // an error is thrown once
        this.#flush();
        await this.#settled();
        if (error !== undefined) throw error;
        return { value: undefined, done: true };
      } else {
        await new Promise((wake) => { this.#wake = wake; });
      }
    }
  }

  #start() {
    this.#started = true;
    const { signal, network } = this.#options;
    const listen = (target, type, f) => {
      target?.addEventListener(type, f);
      this.#tidy.push(() => target?.removeEventListener(type, f));
    };
    if (signal?.aborted) return this.#finish(signal.reason, true);
    listen(signal, "abort", () => this.#finish(signal.reason, true));
    let offline = null;
    listen(network, "offline", () => { offline = Date.now(); });
    listen(network, "online", () => {
      this.#rouse?.();
      if (offline !== null) this.#online?.(offline);
      offline = null;
    });
    listen(network, "pagehide", () => this.#flush(true));
    this.#run().catch((error) => this.#finish(error));
  }

  // run connects again and again until the stream ends.
  async #run() {
    const { storage, maxBackoff, maxAttempts, network } = this.#options;
    if (this.cursor === undefined && storage) this.#done = new Place((await storage.load()) || undefined);
    this.#saved = this.cursor;
    this.#position = new Position(this.cursor);
    let attempt = 0; // in a row, for the back-off
    let failed = 0; // in a row without a connection
    for (let i = 0; !this.#over; i++) {
      const end = await this.#attempt(this.#urls[i % this.#urls.length]);
      if (this.#over) return;
      if (end.full) {
        await this.#drained();
        continue;
      }
      if (end.opened) this.stats.lost++;
      failed = end.opened ? 0 : failed + 1;
      if (end.error.retry === false || failed >= maxAttempts) throw end.error;
      if (end.lived >= maxBackoff) attempt = 0;
      const wait = end.goaway === undefined
        ? Math.max(this.#backoff(attempt), end.error.retryAfter)
        : Math.max(this.#backoff(0), end.goaway); // the router spreads its clients itself
      attempt++;
      this.#say("retrying", { error: end.error, wait, offline: (network?.navigator ?? globalThis.navigator)?.onLine === false });
      await this.#sleep(wait);
    }
  }

  // attempt connects and receives until the connection ends. It tells how that went and never throws.
  async #attempt(base) {
    if (this.#wanted && !this.#every) this.#position.keep((name) => this.#wanted.get(name)?.wish === null);
    let asked = this.#position.place.text;
    const url = new URL(base);
    if (this.#wanted) {
      const keys = this.#every ? [] : [...this.#wanted.values()].filter((w) => !w.wish).map((w) => w.key);
      const none = keys.length === 0 && !this.#every; // a token's keys would all be followed
      if (none) asked = undefined; // it would name no key that is followed, and be refused
      url.searchParams.set("several", none ? "none" : "true");
      const bytes = keys.some((k) => k instanceof Uint8Array); // either all are text or none
      for (const k of keys) url.searchParams.append(bytes ? "key_b64" : "key", bytes ? encode(k instanceof Uint8Array ? k : new TextEncoder().encode(k)) : k);
    }
    this.#say("connecting", { url: url.host });
    const protocols = [subprotocol];
    try {
      const token = await this.#token("connect");
      if (token) protocols.push(bearer + token);
    } catch (cause) {
      return { error: new PointsmanError("the token callback failed", { cause }) };
    }
    const asMessage = asked?.length > longCursor;
    if (asMessage) url.searchParams.set("resume", "message");
    else if (asked) url.searchParams.set("cursor", asked);
    if (this.#options.from !== undefined && !asMessage && (!asked || this.#wanted)) url.searchParams.set("from", this.#options.from);
    if (this.#over) return {};
    return new Promise((resolve) => this.#converse(url, protocols, asked, asMessage, resolve));
  }

  #converse(url, protocols, asked, asMessage, resolve) {
    let socket;
    try {
      socket = new this.#options.WebSocket(url.href, protocols);
    } catch (cause) {
      return resolve({ error: new PointsmanError(`cannot connect to ${url.host}: ${cause.message}`, { retry: false, cause }) });
    }
    const begun = Date.now();
    let opened = false, live = true, goaway, refusal, why;
    let heard = begun, limit = this.#options.connectTimeout, expected, timer;
    const end = (error, how = {}) => {
      if (!live) return;
      live = false;
      clearTimeout(timer);
      this.#retry?.();
      this.#wishes?.stop();
      this.#hang = this.#online = this.#wishes = this.#room = null; // room: what it would resume is gone
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {}; // ws reports a close while it connects as an error
      if (how.dead && socket.terminate) socket.terminate(); // ws would wait for the other end
      else socket.close(1000);
      resolve({ error, opened, goaway, lived: opened ? Date.now() - begun : 0, ...how });
    };
    // watch ends a connection on which nothing was heard for too long: that is how a frozen router is survived.
    const watch = () => {
      const now = Date.now();
      let left = heard + limit - now;
      if (now - expected > standstill) left = Math.max(left, grace);
      if (left <= 0) {
        // A message larger than the line carries in this time would never get through otherwise.
        if (opened) this.#patience = Math.min(2 * this.#patience, mostPatience);
        return end(new PointsmanError(opened ? `nothing was heard from ${url.host} for longer than its heartbeat allows` : `${url.host} does not answer`), { dead: true });
      }
      expected = now + left;
      timer = setTimeout(watch, left);
    };
    const allow = (ms) => {
      limit = ms;
      clearTimeout(timer);
      expected = Infinity;
      watch();
    };
    allow(limit);
    this.#hang = () => end();
    this.#online = (offline) => {
      if (heard < offline) end(new PointsmanError("the network was away"), { dead: true });
    };

    socket.onopen = () => {
      opened = true;
      this.#doubted = false;
      this.stats.connections++;
      heard = Date.now();
      allow(firstSilence * this.#patience / patience);
      if (asMessage) socket.send(JSON.stringify({ type: "resume", cursor: asked }));
    };
    socket.onmessage = ({ data }) => {
      heard = Date.now();
      let m, wish;
      try {
        m = this.#options.parse(data);
        if (typeof m?.type !== "string") throw new TypeError("it has no type");
      } catch (cause) {
        return end(new PointsmanError(`a message from ${url.host} cannot be read: ${cause.message}`, { cause }));
      }
      switch (m.type) {
        case "hello":
          this.#key = key(m) ?? this.#key;
          allow((m.heartbeat_ms || firstSilence / patience) * this.#patience);
          this.#say("open", { url: url.host, resumed: m.resumed, heartbeat: m.heartbeat_ms });
          if (!live) return;
          this.#wishes = new Wishes((text) => socket.send(text));
          for (const w of this.#wanted?.values() ?? []) if (w.wish) this.#wishes.add(w.wish);
          break;
        case "subscribed":
        case "unsubscribed":
        case "refused":
          wish = this.#answered(m);
          break;
        case "waiting":
          this.#say("waiting");
          break;
        case "goaway":
          goaway = m.retry_after_ms ?? 0;
          this.#say("goaway", { wait: goaway });
          break;
        case "expiring":
          if (typeof this.#options.token === "function" && !this.#retry) this.#renew(socket, () => live);
          break;
        case "record":
        case "checkpoint":
          if (this.#patience !== patience) {
            limit *= patience / this.#patience;
            this.#patience = patience;
          }
          if (this.#state === "waiting") this.#say("open", { url: url.host });
      }
      this.#receive(m, asked, data.length, wish);
      if (!live || this.#room || (this.#queue.length < this.#options.maxQueue && this.#size < this.#options.maxQueueSize)) return;
      this.stats.pauses++;
      this.#say("paused");
      if (typeof socket.pause !== "function") return end(undefined, { full: true });
      // ws can stop reading: the router sees a slow client, which falls behind and loses nothing.
      socket.pause();
      clearTimeout(timer);
      this.#room = () => {
        if (!live) return;
        heard = Date.now();
        allow(limit);
        socket.resume();
        this.#say("open", { url: url.host });
      };
    };
    socket.onerror = ({ message }) => {
      refusal ??= refused(message);
      why = message || "it is away or refuses; a browser is not told which";
    };
    socket.onclose = ({ code, reason }) => {
      if (!opened) return end(this.#judge(refusal) ?? new PointsmanError(`cannot connect to ${url.host}: ${why ?? "it is away or refuses"}`));
      const known = closeCodes[code];
      end(new PointsmanError(`closed by ${url.host} with code ${code}${known ? ` (${known.name})` : ""}${reason ? `: ${reason}` : ""}`,
        { code, reason, retry: known?.retry ?? true }));
    };
    // Of the package ws: the answer in place of an upgrade.
    socket.on?.("unexpected-response", (request, response) => {
      let text = "";
      const done = () => {
        refusal = refused(`server response: ${response.statusCode}`, text.split("\n", 1)[0].slice(0, 300), response.headers["retry-after"]);
        end(this.#judge(refusal), { dead: true });
      };
      response.on("data", (part) => { if (text.length < 1024) text += part; });
      response.on("end", done);
      response.on("error", done);
    });
  }

  // answered takes what the router says about a key, and gives the wish that it answers.
  #answered(m) {
    const wanted = this.#wanted?.get(nameOf(m));
    const wish = wanted?.wish;
    const waits = wish && !this.#wishes?.sent(wish); // then this answers an earlier one
    if (m.type === "subscribed" && !wanted) this.#wanted?.set(nameOf(m), { key: key(m), wish: null }); // the token names it
    else if (m.type === "unsubscribed" && wish === null) this.#wanted.delete(nameOf(m)); // that crossed its subscribed
    else if (wanted && !waits && (m.type === "subscribed" || m.reason === "already")) wanted.wish = null;
    else if (wanted && !waits && m.type === "refused" && m.of === "subscribe" && m.reason !== "unavailable") this.#wanted.delete(nameOf(m));
    try {
      this.#options.onKey?.({ type: m.type, key: key(m), resumed: m.resumed, of: m.of, reason: m.reason, detail: m.detail, cursor: m.cursor });
    } catch (error) {
      this.#finish(error);
    }
    return waits ? undefined : wish;
  }

  // judge lets a token that was refused be followed by a fresh one, once: it may have been too old.
  #judge(refusal) {
    if (refusal?.status === 401 && typeof this.#options.token === "function" && !this.#doubted) {
      this.#doubted = true;
      refusal.retry = true;
    }
    return refusal;
  }

  async #token(why) {
    const { token } = this.#options;
    return typeof token === "function" ? token(why) : token;
  }

  // renew sends a fresh token on the open connection, and tries until it could or the connection has ended.
  async #renew(socket, live) {
    for (let attempt = 0; live(); attempt++) {
      try {
        const token = await this.#token("expiring");
        if (!live()) return;
        socket.send(JSON.stringify({ type: "auth", token }));
        this.stats.renewals++;
        return;
      } catch {
        if (!live()) return;
        await new Promise((resolve) => {
          const done = () => {
            clearTimeout(timer);
            this.#retry = null;
            resolve();
          };
          const timer = setTimeout(done, this.#backoff(attempt));
          this.#retry = done;
        });
      }
    }
  }

  #receive(m, asked, size, wish) {
    const move = this.#position.take(m, asked, wish);
    if (move.repeat) {
      this.stats.repeats++;
    } else if (m.type === "record") {
      this.#push({ record: record(m, this.#key), move, size });
    } else if (m.type === "gap") {
      this.#push({ gap: { type: "gap", cursor: m.cursor, key: key(m) ?? this.#key, reason: m.reason, partition: m.partition, from: m.from ?? null, to: m.to }, move, size });
    } else if (move.cursor) {
      const last = this.#queue.at(-1);
      if (last && !last.record && !last.gap && move.name === undefined) last.move = move;
      else this.#push({ move, size: 0 });
    }
  }

  #push(item) {
    this.#queue.push(item);
    this.#size += item.size;
    this.#wake?.();
    this.#wake = null;
  }

  // drained waits until the program has taken most of what is queued.
  #drained() {
    if (this.#queue.length <= this.#options.maxQueue / 4 && this.#size <= this.#options.maxQueueSize / 4) return undefined;
    return new Promise((resolve) => { this.#room = resolve; });
  }

  #backoff(attempt) {
    const { minBackoff, maxBackoff } = this.#options;
    if (attempt === 0) return Math.random() * minBackoff;
    const d = Math.min(maxBackoff, minBackoff * 2 ** Math.min(attempt, 30));
    return d / 2 + (Math.random() * d) / 2;
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#rouse = () => {
        clearTimeout(timer);
        this.#rouse = null;
        resolve();
      };
    });
  }

  #moved(move) {
    this.#done.move(move);
    if (!this.#options.storage || this.#over) return;
    this.#saveTimer ??= setTimeout(() => {
      this.#saveTimer = null;
      this.#flush();
    }, this.#options.saveEvery);
  }

  // flush saves the cursor, one save after the other: a slow one must not undo those behind it. One that fails is made
  // up for by the next. A page that is being left has no later: it saves at once, and again should it live on.
  #flush(leaving = false) {
    const { storage } = this.#options;
    const { cursor } = this;
    if (!storage || !this.#started || cursor === undefined || cursor === this.#saved) return;
    if (this.#slow > 0) {
      this.#late = true;
      if (!leaving) return;
    } else {
      this.#saved = cursor;
    }
    const failed = () => {
      this.stats.saveErrors++;
      this.#saved = undefined;
    };
    let done;
    try {
      done = storage.save(cursor);
    } catch {
      return failed();
    }
    if (typeof done?.then !== "function") return;
    this.#slow++;
    const settled = Promise.resolve(done).catch(failed).then(() => {
      if (--this.#slow > 0 || !this.#late) return;
      this.#late = false;
      this.#flush();
    });
    this.#saving = Promise.all([this.#saving, settled]);
  }

  async #settled() {
    while (this.#slow > 0) await this.#saving;
  }

  #say(state, detail = {}) {
    if (this.#over && state !== "closed") return;
    this.#state = state;
    try {
      this.#options.onState?.({ state, ...detail });
    } catch (error) {
      this.#finish(error);
    }
  }

  // finish ends everything; after an error the program still gets what was received before it.
  #finish(error, now = error === undefined) {
    if (this.#over) return;
    this.#over = { error };
    if (now) {
      this.#queue = [];
      this.#size = 0;
    }
    clearTimeout(this.#saveTimer);
    for (const f of this.#tidy) f();
    this.#hang?.();
    this.#rouse?.();
    this.#room?.();
    this.#flush();
    this.#wake?.();
    this.#say("closed", { error });
  }
}

function without(options, name) {
  const { [name]: _, ...rest } = options;
  return rest;
}

// complete gives the URL of a router, less what changes from connection to connection.
function complete(text, name) {
  const url = new URL(text, globalThis.location?.href);
  const scheme = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" }[url.protocol];
  if (!scheme) throw new TypeError(`URL ${text} does not begin with ws:// or wss://`);
  url.protocol = scheme;
  if (url.pathname === "/") url.pathname = path;
  url.hash = "";
  const { key, key_b64 } = spelled(name);
  if (key_b64 !== undefined) url.searchParams.set("key_b64", key_b64);
  else if (key !== undefined) url.searchParams.set("key", key);
  return url;
}

// spelled is a key as messages and addresses have it.
function spelled(name) {
  if (!(name instanceof Uint8Array)) return { key: name };
  try {
    return { key: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(name) };
  } catch {
    return { key_b64: encode(name) };
  }
}

function refused(message, reason = "", after = "") {
  const status = Number(/server response: (\d+)/.exec(message)?.[1]);
  if (!status) return undefined;
  return new PointsmanError(`refused by the router with status ${status}${reason ? `: ${reason}` : ""}`, {
    status, reason, retry: (status >= 500 && status !== 501 && status !== 505) || [408, 425, 429].includes(status), retryAfter: 1000 * Number(after) || 0,
  });
}

// Wishes go out as fast as routers allow by default, with room for what the browser sends: 50 at once, then ten a second.
// Of those that wait only the last word about each key is kept.
class Wishes {
  #waiting = [];
  #sent = new WeakSet();
  #paid = -Infinity;
  #timer;
  constructor(send) { this.send = send; }
  add(m) {
    const name = nameOf(m);
    this.#waiting = this.#waiting.filter((w) => nameOf(w) !== name || (m.type === "subscribe" && w.type === "unsubscribe"));
    this.#waiting.push(m);
    if (this.#timer === undefined) this.#go();
  }
  sent(m) { return this.#sent.has(m); }
  stop() {
    clearTimeout(this.#timer);
    this.#waiting = [];
  }
  #go() {
    this.#timer = undefined;
    while (this.#waiting.length > 0) {
      const now = Date.now();
      this.#paid = Math.min(Math.max(this.#paid, now - 5000), now + 100);
      if (this.#paid >= now) {
        this.#timer = setTimeout(() => this.#go(), this.#paid - now + 1);
        return;
      }
      this.#paid += 100;
      const m = this.#waiting.shift();
      this.#sent.add(m);
      this.send(JSON.stringify(m));
    }
  }
}

function record(m, name) {
  const out = {
    type: "record", cursor: m.cursor, key: key(m) ?? name, partition: m.partition, offset: m.offset,
    timestamp: m.timestamp === undefined ? m.timestamp_ms ?? null : Date.parse(m.timestamp),
    headers: (m.headers ?? []).map((h) => ({ key: key(h), value: h.text ?? decode(h.base64) ?? null })),
    format: "json", value: m.value, tombstone: false,
  };
  if (m.text !== undefined) Object.assign(out, { format: "text", value: m.text });
  if (m.base64 !== undefined) Object.assign(out, { format: "bytes", value: decode(m.base64) });
  if (m.tombstone) Object.assign(out, { format: "none", value: null, tombstone: true });
  return out;
}

function key(m) { return m.key ?? decode(m.key_b64); }

function decode(base64) {
  return base64 === undefined ? undefined : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function encode(bytes) { return urlSafe(btoa(String.fromCharCode(...bytes))); }

function urlSafe(base64) { return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""); }
