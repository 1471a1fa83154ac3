// The page: it hears from the playground how the stack is, runs the clients, and shows both.

import { Client } from "./client.js";
import { Tally } from "./tally.js";
import { Timeline } from "./timeline.js";
import { View, names } from "./view.js";

const frame = 100; // ms between two pictures
const remember = 5000; // ms for which a router that came back counts as one that left

const tally = new Tally();
const timeline = new Timeline(document.getElementById("timeline"));
const view = new View(press);
let about = null;
let state = null;
let clients = [];
const owners = []; // by partition: who served it last
const left = new Map(); // router's name -> when it was last seen not to live

tally.onDelay = (at, ms) => timeline.delay(at, ms);

const desk = {
  tally,
  get run() { return about.run; },
  routers: () => state.routers,
  exiting: (name) => Date.now() - (left.get(name) ?? 0) < remember,
  event: (tone, title, detail) => view.note(tone, title, detail),
  byHand(client, m) {
    const value = m.value !== undefined ? JSON.stringify(m.value) : m.text ?? (m.tombstone ? "a tombstone" : "bytes");
    view.note("good", `${client.key} got a record made by hand`, value);
    view.flash(client.index);
  },
};

function hear() {
  const events = new EventSource("api/events");
  events.addEventListener("about", (e) => {
    const next = JSON.parse(e.data);
    if (about && about.run !== next.run) { // another playground on the same address
      location.reload();
      return;
    }
    if (about) return;
    about = next;
    view.about(about);
  });
  events.addEventListener("state", (e) => see(JSON.parse(e.data)));
  events.onerror = () => view.scene("The playground does not answer. Is it still running?");
  events.onopen = () => { if (about) view.about(about); };
}

function see(next) {
  const before = state;
  state = next;
  for (const r of state.routers) if (r.state !== "live") left.set(r.name, Date.now());
  timeline.acks(state.acks);
  tally.follow(state.actions, state.now);
  const known = new Set((before?.actions ?? []).map((a) => a.id));
  if (before) {
    for (const a of state.actions) if (!known.has(a.id)) timeline.mark(names.action(a), Date.now());
  }
  state.partitions.forEach((p, i) => {
    if (!p.node) return;
    if (owners[i] && owners[i] !== p.node) tally.moved(i);
    owners[i] = p.node;
  });
  if (clients.length === 0) {
    clients = about.keys.map((k, i) => new Client(k.key, k.partition, i, desk));
    view.clients(clients);
    for (const c of clients) c.start();
  }
  view.state(state, clients);
}

async function press(kind, target = "") {
  view.notice("");
  try {
    const answer = await fetch("api/actions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ kind, target }),
    });
    if (!answer.ok) view.notice((await answer.text()).trim());
  } catch {
    view.notice("the playground does not answer");
  }
}

setInterval(() => {
  if (!state) return;
  const now = performance.now();
  for (const c of clients) c.listen(now);
  tally.follow(state.actions, Date.now());
  view.counters(tally, inFlight(), now);
  view.pulse(clients, state, now, about.rate);
  view.log(tally.windows);
  timeline.draw();
}, frame);

function inFlight() {
  let n = 0;
  for (const c of clients) if (c.next !== null) n += Math.max(0, state.acked[c.index] - c.seen);
  return n;
}

hear();
