// One live client: a WebSocket to a router that comes back with its cursor, and the check of what it gets. The
// producer numbers the records of each key 1, 2, 3 …, so a client needs nobody to tell it what is missing.

const subprotocol = "pointsman.json.v1";
// Closes with which a router says goodbye (DESIGN, close codes): going away, service restart.
const goodbyes = new Set([1001, 1012]);
const abnormal = 1006;
const firstSilence = 30_000;
const obituary = 1000;
const rememberMissing = 10_000;

export class Client {
  // desk is what the client reports to and asks: {routers(), exiting(name), tally, event(...)}.
  constructor(key, partition, index, desk) {
    Object.assign(this, { key, partition, index, desk });
    this.state = "connecting"; // then live, waiting (no node lives), away (between two sockets)
    this.router = null; // name
    this.cursor = null;
    this.next = null; // number of the next record
    this.missing = new Set(); // numbers that were jumped over
    this.received = 0;
    this.seen = 0; // newest number
    this.lastAt = 0; // performance.now() of the last record
    this.helloAt = 0; // Date.now() of the last hello
    this.resumed = false; // the socket continues an earlier one
    this.attempts = 0;
  }

  start() {
    this.connect(this.index);
  }

  // connect goes to the router that is turn's, among those that live; while none does, it looks again.
  connect(turn) {
    const up = this.desk.routers().filter((r) => r.state === "live");
    if (up.length === 0) {
      setTimeout(() => this.connect(turn), 100 + Math.random() * 200);
      return;
    }
    const router = up[turn % up.length];
    this.router = router.name;
    const url = new URL("/v1/ws", router.url);
    url.searchParams.set("key", this.key);
    if (this.cursor) url.searchParams.set("cursor", this.cursor);
    const ws = new WebSocket(url, subprotocol);
    this.socket = ws;
    this.opened = false;
    this.retryAfter = null;
    this.heartbeat = firstSilence;
    this.heardAt = performance.now();
    ws.onopen = () => { this.opened = true; };
    ws.onmessage = (e) => this.message(JSON.parse(e.data));
    ws.onclose = (e) => this.closed(e);
  }

  message(m) {
    this.heardAt = performance.now();
    if (m.type === "record") this.record(m);
    if (m.cursor) this.cursor = m.cursor; // only now: what it covers has been counted
    switch (m.type) {
      case "hello":
        this.heartbeat = m.heartbeat_ms * 1.5;
        this.resumed = this.helloAt > 0;
        this.helloAt = Date.now();
        this.lastAt = this.heardAt;
        this.attempts = 0;
        this.state = "live";
        break;
      case "waiting":
        this.state = "waiting";
        break;
      case "gap":
        this.desk.event("bad", `${this.key} was told of a gap`, m.reason);
        break;
      case "goaway":
        this.retryAfter = m.retry_after_ms;
        break;
    }
  }

  record(m) {
    this.state = "live";
    this.offset = m.offset;
    this.partition = m.partition;
    const v = m.value;
    if (v?.run !== this.desk.run) {
      if (v?.run === undefined) this.desk.byHand(this, m);
      return;
    }
    this.lastAt = performance.now();
    this.received++;
    const { tally } = this.desk;
    const fresh = this.check(v.seq, tally);
    if (fresh) tally.record(v.at, this.resumed && v.at < this.helloAt);
    else tally.count("received", 1);
  }

  // check compares a record's number with what was due; it tells whether the record was not there yet.
  check(seq, tally) {
    this.seen = Math.max(this.seen, seq);
    if (this.next === null || seq === this.next) {
      this.next = seq + 1;
      return true;
    }
    if (seq > this.next) {
      tally.count("lost", seq - this.next);
      for (let n = this.next; n < seq && this.missing.size < rememberMissing; n++) this.missing.add(n);
      this.next = seq + 1;
      return true;
    }
    if (this.missing.delete(seq)) { // it was late, not lost
      tally.count("lost", -1);
      tally.count("reordered", 1);
      return true;
    }
    tally.count("repeated", 1);
    return false;
  }

  closed(e) {
    if (this.opened) this.judge(e, this.router, this.deaf);
    this.deaf = false;
    this.state = "away";
    const wait = this.retryAfter ?? (this.attempts === 0 ? Math.random() * 100 : Math.random() * Math.min(2000, 200 * 2 ** this.attempts));
    this.attempts++;
    setTimeout(() => this.connect(this.index + this.attempts), wait);
  }

  // judge tells a router's exit from a socket that broke.
  judge(e, router, deaf) {
    const broken = () => {
      this.desk.tally.count("broken", 1);
      this.desk.event("bad", `${this.key}’s socket broke`, `${e.code} ${e.reason || (deaf ? "nothing was heard" : "no reason given")}`);
    };
    if (goodbyes.has(e.code)) {
      this.desk.tally.count("exits", 1);
    } else if (e.code === abnormal && !deaf) {
      // A router that was killed has said nothing; the playground soon tells that it is gone.
      setTimeout(() => (this.desk.exiting(router) ? this.desk.tally.count("exits", 1) : broken()), obituary);
    } else {
      broken();
    }
  }

  // listen gives up a socket that is silent for longer than its router promised: that router is frozen.
  listen(now) {
    if (this.socket?.readyState === WebSocket.OPEN && now - this.heardAt > this.heartbeat) {
      this.deaf = true;
      this.socket.close();
    }
  }
}
