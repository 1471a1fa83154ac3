// Everything but the search and the table of partitions.
import { $, ago, bytes, el, facts, grow, names, number, put, ranges, rows, say, since } from "./dom.js";
import { trouble } from "./partitions.js";

export function show(s, choose) {
  const now = Date.parse(s.at);
  head(s);
  problems(s);
  tiles(s);
  nodes(s, now, choose);
  tables(s, now);
}

function head(s) {
  say($("who"), s.of === "node" ? `node ${s.id}` : `console of ${s.id}`);
  document.title = `${s.problems.length ? `(${s.problems.length}) ` : ""}${s.id} · Pointsman`;
  const t = s.topic;
  say($("topic"), t ? `topic ${t.name}, ${number(t.partitions)} partitions, ${t.partitioner}, group ${t.group}` : "the topic is not known yet");
  const bad = s.problems.length || s.unready;
  $("verdict").dataset.state = bad ? "bad" : "good";
  let text = s.of === "node" ? "all is well here" : "all is well";
  if (s.problems.length) text = s.problems.length === 1 ? "1 thing needs a look" : `${s.problems.length} things need a look`;
  else if (s.unready) text = "not ready";
  say($("verdict"), text);
}

function problems(s) {
  const all = [...s.problems];
  if (s.unready && s.of === "router") all.unshift(`not ready: ${s.unready}`);
  else if (s.unready) all.unshift(s.unready);
  const items = grow($("problems").firstElementChild, all.length, "li");
  all.forEach((text, i) => say(items[i], text));
  $("problems").hidden = all.length === 0;
}

const sum = (list, of) => list.reduce((total, x) => total + (of(x) || 0), 0);

function tiles(s) {
  const self = s.routers.find((r) => r.self);
  const alone = s.of === "node";
  const owned = s.partitions.filter((p) => p.node && !p.stand_in).length;
  const served = s.partitions.filter((p) => p.node).length;
  const lag = sum(s.partitions, (p) => p.lag), behind = sum(s.partitions, (p) => p.behind), streams = sum(s.nodes, (n) => n.streams);
  const all = [];
  if (self) {
    all.push(["clients here", number(self.sessions), self.waiting ? `${number(self.waiting)} wait for a node` : self.pending ? `${number(self.pending)} are being moved` : "all are served", self.waiting > 0]);
  }
  all.push(["streams", number(streams), alone ? "one for each client and key, of this node" : "one for each client and key, of all routers"]);
  if (alone) all.push(["partitions", number(owned), served > owned ? `and ${number(served - owned)} for others` : "claimed here"]);
  else {
    all.push(["partitions served", number(served), `of ${number(s.partitions.length)}, ${owned === served ? "by their owners" : `${number(served - owned)} by stand-ins`}`, served < s.partitions.length]);
  }
  all.push(["not read yet", number(lag), "records, of all partitions", lag >= 10000]);
  all.push(["behind", number(behind), behind ? "clients catch up" : "every client is at the head"]);
  if (!alone) all.push(["nodes", number(s.nodes.filter((n) => n.linked).length), `linked, of ${number(s.nodes.length)}`, s.nodes.some((n) => !n.linked)]);
  all.push(["routers", number(s.routers.length), alone ? "linked to this node" : "that nodes know"]);
  all.push(["table", ago(s.table.age_ms), s.etcd.error ? "etcd is away, it stays in force" : `unchanged, revision ${s.table.revision}`, !!s.etcd.error]);
  const divs = grow($("tiles"), all.length, "div");
  all.forEach(([term, value, sub, bad], i) => {
    if (divs[i].children.length !== 3) divs[i].replaceChildren(el("dt"), el("dd"), el("dd", "sub"));
    put(divs[i], "className", `tile${bad ? " bad" : ""}${value.length > 7 ? " long" : ""}`);
    say(divs[i].children[0], term);
    say(divs[i].children[1], value);
    say(divs[i].children[2], sub);
  });
}

function nodes(s, now, choose) {
  const by = new Map(s.nodes.map((n) => [n.id, []]));
  const nobody = [];
  for (const p of s.partitions) (by.get(p.node) || nobody).push(p);
  const cards = [...s.nodes];
  if (nobody.length && s.of === "router") cards.push({ id: "", nobody: true });
  const many = cards.length > 16;
  if (many) cards.sort((a, b) => (state(b, s).kind !== "") - (state(a, s).kind !== "")); // the sort is stable
  $("nodes").classList.toggle("many", many);
  $("nodes").tabIndex = many ? 0 : -1; // what scrolls can be scrolled by keyboard
  say($("nodes-sub"), `${number(s.nodes.length)} ${s.nodes.length === 1 ? "node" : "nodes"}`);
  const items = grow($("nodes"), cards.length, "li");
  cards.forEach((n, i) => card(items[i], n, n.nobody ? nobody : by.get(n.id), s, now, choose, many));
}

function card(li, n, mine, s, now, choose, many) {
  if (li.children.length !== 4) {
    const top = el("div", "head");
    const name = el("button");
    name.type = "button";
    name.addEventListener("click", () => choose(name.dataset.node));
    top.append(name, el("span"), el("span", "where"));
    const cells = el("div", "cells");
    cells.setAttribute("aria-hidden", "true");
    li.replaceChildren(top, el("dl", "facts"), el("p", "note"), cells);
  }
  const [top, list, note, cells] = li.children;
  const [name, badge, where] = top.children;
  const { text, kind } = state(n, s);
  put(li, "className", `node ${kind}`);
  say(name, n.nobody ? "nobody" : n.id);
  name.dataset.node = n.id;
  name.title = n.nobody ? "" : `instance ${n.instance}, links ${n.addr}, operators ${n.admin || "none"}`;
  name.disabled = !!n.nobody;
  put(badge, "className", `badge ${kind}`);
  say(badge, text);
  say(where, n.nobody ? "" : [n.zone && `zone ${n.zone}`, n.version, n.started && `up ${since(n.started, now)}`].filter(Boolean).join(" · "));
  const which = many || !mine.length ? "" : ` (${ranges(mine.map((p) => p.partition))})`;
  const all = [["partitions", mine.length ? number(mine.length) + which : "none"]];
  if (!n.nobody && !n.unheard) {
    all.push(["streams", number(n.streams)]);
    if (!many || n.behind) all.push(["behind", number(n.behind)]);
    if (!many || n.lag) all.push(["not read", number(n.lag)]);
    all.push(["memory", bytes(n.memory_bytes)]);
    if (n.rtt_ms && !many) all.push(["link", `${n.rtt_ms < 10 ? n.rtt_ms.toFixed(1) : Math.round(n.rtt_ms)} ms`]);
    if (n.mismatched) all.push(["misplaced", number(n.mismatched)]);
    if (n.keyless) all.push(["without key", number(n.keyless)]);
  }
  facts(list, all);
  const remark = n.nobody ? "" : (!n.linked && s.of === "router" && short(n.link_error)) || n.unheard || (n.draining ? "" : n.problem) || "";
  say(note, remark);
  note.hidden = !remark;
  strip(cells, mine);
}

// short keeps the end of a chain of errors, which says what happened.
function short(error = "") {
  const at = error.lastIndexOf("dial tcp");
  return at > 0 ? error.slice(at) : error;
}

function state(n, s) {
  if (n.nobody) return { text: "clients wait", kind: "bad" };
  if (s.of === "router" && !n.linked) return { text: "not linked", kind: "bad" };
  if (!n.listed) return { text: s.of === "node" ? "not in etcd yet" : "not in etcd", kind: "warn" };
  if (n.draining) return { text: "draining", kind: "warn" };
  if (n.stage) return { text: n.stage, kind: "warn" };
  if (n.problem) return { text: "not ready", kind: "warn" };
  if (n.unheard) return { text: s.of === "router" ? "linked, not heard" : "not heard", kind: "warn" };
  return { text: s.of === "router" ? "linked" : "serves", kind: "" };
}

function strip(cells, mine) {
  const all = grow(cells, mine.length, "i");
  mine.forEach((p, i) => {
    put(all[i], "className", !p.node ? "nobody" : p.stand_in ? "stand-in" : p.scanning ? "scanning" : p.lag > 1000 ? "lagging" : "");
    const more = trouble(p);
    put(all[i], "title", `partition ${p.partition}${p.reading ? `, head ${number(p.head)}, ${number(p.lag)} not read, ${number(p.streams)} clients` : ""}${more ? `: ${more}` : ""}`);
  });
}

const causes = { claim: "new owner", link_down: "node lost", link_up: "node linked" };

function tables(s, now) {
  const alone = s.of === "node";
  $("handovers").hidden = alone;
  first(s.handovers, 10, "handover-table", (h) => [
    since(h.at, now), causes[h.cause] || h.cause, number(h.partitions), number(h.sessions),
    h.unserved ? `${number(h.unserved)} still wait` : h.pause_ms ? pause(h.pause_ms) : "none",
    { text: names(h.from), kind: "names" }, { text: names(h.to), kind: "names" },
  ], (h) => (h.unserved ? "bad" : ""));

  first(s.partitions.filter((p) => p.scanning), 12, "catchup-table", (p) => [
    p.partition, p.node, number(p.behind), number(p.lowest), number(p.scan_at), number(Math.max(0, (p.head || 0) - (p.scan_at || 0))),
  ]);

  first(s.mismatches, 10, "mismatch-table", (m) => [
    m.partition, number(m.count), number(m.offset), since(m.at, now), m.looks_like || "none that is known", m.node || "–",
  ], () => "warn");

  first(s.routers, 100, "router-table", (r) => [
    { text: r.id + (r.self ? " (this)" : ""), kind: "text" }, r.self ? number(r.sessions) : "–", number(r.streams), number(r.nodes), r.self ? number(r.waiting) : "–", r.self ? number(r.pending) : "–",
    r.self ? bytes(r.memory_bytes) : "–", since(r.since, now), r.version || "–", r.self ? "here" : r.remote || "–",
  ], (r) => (r.draining ? "warn" : ""));
}

// first shows the first few of a list, and how many more there are.
function first(list, most, id, cells, kind = () => "") {
  const shown = list.slice(0, most);
  rows($(id), shown.map(cells), shown.map(kind));
  const more = $(id).parentElement.parentElement.querySelector(".more");
  more.hidden = list.length <= most;
  say(more, `and ${number(list.length - most)} more`);
}

function pause(ms) {
  if (ms < 1) return "< 1 ms";
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
