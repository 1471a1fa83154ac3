// What is to be seen. Nothing here decides anything.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const keysOfButtons = { a: "add", d: "drain", k: "kill", f: "freeze", r: "restart-router", e: "etcd" };

function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function plural(n, one, many = `${one}s`) {
  return `${number.format(n)} ${n === 1 ? one : many}`;
}

function pause(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export const names = {
  action(a) {
    switch (a.kind) {
      case "add": return a.target ? `add ${a.target}` : "add a node";
      case "drain": return `drain ${a.target}`;
      case "kill": return `kill -9 ${a.target}`;
      case "freeze": return `freeze ${a.target}`;
      case "restart-router": return `restart ${a.target}`;
      case "stop-etcd": return "stop etcd";
      case "start-etcd": return "start etcd";
      case "ended": return `${a.target} ended by itself`;
    }
    return a.kind;
  },
};

export class View {
  constructor(press) {
    this.press = press;
    this.samples = [];
    this.cards = new Map(); // node id -> its parts
    this.rows = new Map(); // action id -> its parts
    for (const b of document.querySelectorAll(".actions button")) b.addEventListener("click", () => press(b.dataset.kind));
    document.addEventListener("keydown", (e) => this.key(e));
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || e.repeat) return;
    const kind = keysOfButtons[e.key.toLowerCase()];
    if (!kind) return;
    const b = kind === "etcd" ? $("etcd-button") : document.querySelector(`.actions button[data-kind="${kind}"]`);
    if (!b.disabled) b.click();
  }

  scene(text) { set($("scene"), text); }

  notice(text) { $("notice").textContent = text; }

  about(a) {
    this.scene(`${plural(a.keys.length, "client")}, ${number.format(a.keys.length * a.rate)} records a second into topic ${a.topic}, ${plural(a.partitions, "partition")}`);
    if (this.told) return;
    this.told = a;
    $("etcd-button").hidden = a.external;
    for (const c of a.commands) {
      $("commands").append(make("dt", "", c.what));
      for (const [i, text] of [c.command, c.or].entries()) {
        if (!text) continue;
        const dd = make("dd");
        if (i > 0) dd.append(make("span", "or", "or, without that program"));
        const copy = make("button", "copy", "copy");
        copy.type = "button";
        copy.addEventListener("click", () => this.copy(copy, text));
        dd.append(make("code", "", text), copy);
        $("commands").append(dd);
      }
    }
    const grid = $("partitions");
    grid.classList.toggle("many", a.partitions > 64);
    for (let i = 0; i < a.partitions; i++) grid.append(make("li"));
  }

  async copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  clients(all) {
    const list = $("clients");
    this.tiles = all.map((c) => {
      const li = make("li");
      const seq = make("span", "seq", "–");
      li.append(make("i", "lamp"), make("span", "key", c.key), seq);
      list.append(li);
      return { li, seq, received: 0 };
    });
  }

  state(s, clients) {
    this.slots = new Map(s.nodes.map((n) => [n.id, n.slot]));
    const served = new Map();
    const heard = new Map();
    for (const p of s.partitions) served.set(p.node, (served.get(p.node) ?? 0) + 1);
    for (const c of clients) {
      const node = s.partitions[c.partition]?.node;
      heard.set(node, (heard.get(node) ?? 0) + 1);
    }
    this.nodes(s, served, heard);
    this.others(s);
    this.partitions(s);
    // What makes no sense now cannot be pressed.
    const count = (...states) => s.nodes.filter((n) => states.includes(n.state)).length;
    const button = (kind) => document.querySelector(`.actions button[data-kind="${kind}"]`);
    button("add").disabled = this.told !== undefined && count("live", "starting", "draining", "frozen") >= this.told.max_nodes;
    for (const kind of ["drain", "kill", "freeze"]) button(kind).disabled = count("live") === 0;
    button("restart-router").disabled = !s.routers.some((r) => ["live", "waiting", "dead"].includes(r.state));
    const etcd = $("etcd-button");
    const up = s.etcd === "live";
    etcd.dataset.kind = up ? "stop-etcd" : "start-etcd";
    etcd.disabled = s.etcd === "starting";
    set(etcd.querySelector("span"), up ? "Stop etcd" : "Start etcd");
  }

  // card finds or makes the row of a process.
  card(list, id, buttons) {
    let c = this.cards.get(id);
    if (c) return c;
    const li = make("li");
    const badge = make("span", "badge");
    const detail = make("span", "detail");
    const text = make("div", "text");
    text.append(make("b", "", id), badge, detail);
    const box = make("div", "buttons");
    for (const [kind, label] of buttons) {
      const b = make("button", kind === "kill" ? "danger" : "", label);
      b.type = "button";
      b.dataset.kind = kind;
      b.setAttribute("aria-label", `${label} ${id}`);
      b.addEventListener("click", () => this.press(b.dataset.kind, b.dataset.kind.endsWith("etcd") ? "" : id));
      box.append(b);
    }
    li.append(make("i", "swatch"), text, box);
    list.append(li);
    c = { li, badge, detail, buttons: [...box.children] };
    this.cards.set(id, c);
    return c;
  }

  nodes(s, served, heard) {
    const list = $("nodes");
    const ids = new Set(s.nodes.map((n) => n.id));
    for (const [id, c] of this.cards) {
      if (c.li.parentNode === list && !ids.has(id)) {
        c.li.remove();
        this.cards.delete(id);
      }
    }
    for (const n of s.nodes) {
      const c = this.card(list, n.id, [["drain", "drain"], ["freeze", "freeze"], ["kill", "kill -9"]]);
      c.li.className = `slot-${n.slot} is-${n.state}`;
      const until = n.state === "frozen" ? ` ${Math.max(0, Math.ceil((n.until - s.now) / 1000))} s` : "";
      set(c.badge, n.state + until);
      const gone = n.state === "dead" || n.state === "gone";
      const load = `${plural(served.get(n.id) ?? 0, "partition")} · ${plural(heard.get(n.id) ?? 0, "client")}`;
      set(c.detail, gone ? "" : `${load} · pid ${n.pid}`);
      for (const b of c.buttons) {
        b.disabled = !(n.state === "live" || (b.dataset.kind === "kill" && (n.state === "frozen" || n.state === "starting")));
      }
    }
  }

  others(s) {
    const list = $("others");
    for (const r of s.routers) {
      const c = this.card(list, r.name, [["restart-router", "restart"]]);
      c.li.className = `router is-${r.state}`;
      set(c.badge, r.state);
      set(c.detail, `${plural(r.sessions, "socket")} · ${r.url.replace("ws://", "")} · pid ${r.pid}`);
      c.buttons[0].disabled = !["live", "waiting", "dead"].includes(r.state);
    }
    const c = this.card(list, "etcd", s.etcd === "foreign" ? [] : [["stop-etcd", "stop"]]);
    c.li.className = `store is-${s.etcd}`;
    set(c.badge, s.etcd === "foreign" ? "yours" : s.etcd);
    set(c.detail, s.etcd === "stopped" ? "routers keep their last table" : "the map of who serves what");
    for (const b of c.buttons) {
      const up = s.etcd === "live";
      b.dataset.kind = up ? "stop-etcd" : "start-etcd";
      b.disabled = s.etcd === "starting";
      set(b, up ? "stop" : "start");
      b.setAttribute("aria-label", `${up ? "stop" : "start"} etcd`);
    }
  }

  partitions(s) {
    const cells = $("partitions").children;
    $("partitions").classList.toggle("unknown", s.partitions.length === 0);
    s.partitions.forEach((p, i) => {
      const cell = cells[i];
      if (!cell) return;
      const slot = this.slots.get(p.node);
      const name = p.node ? p.node.replace("node-", "n") : "–";
      const key = `${slot} ${name} ${p.stand_in}`;
      if (cell.dataset.key === key) return;
      const first = cell.dataset.key === undefined;
      cell.dataset.key = key;
      cell.className = `${slot === undefined ? "nobody" : `slot-${slot}`} ${p.stand_in ? "standin" : ""}`;
      cell.title = `partition ${i}: ${p.node ? `served by ${p.node}${p.stand_in ? ", a stand-in" : ""}` : "no node lives"}`;
      cell.replaceChildren(make("b", "", String(i)), make("span", "", name));
      if (!first) cell.animate?.([{ transform: "scale(1.18)" }, { transform: "none" }], { duration: calm() ? 0 : 450, easing: "ease-out" });
    });
  }

  // pulse lights the clients that got something and shows who pauses.
  pulse(clients, s, now, rate) {
    const long = Math.max(1000, 4000 / rate);
    clients.forEach((c, i) => {
      const t = this.tiles[i];
      const slot = this.slots.get(s.partitions[c.partition]?.node);
      const got = c.received !== t.received;
      t.received = c.received;
      const late = c.lastAt > 0 && now - c.lastAt > long;
      const mood = c.state === "live" && late ? "quiet" : c.state;
      const look = `${slot === undefined ? "nobody" : `slot-${slot}`} ${mood}${got ? " got" : ""}`;
      if (t.look !== look) t.li.className = t.look = look;
      if (got) set(t.seq, String(c.seen));
      const title = `${c.key}: partition ${c.partition}, ${c.state}, on ${c.router}`;
      if (t.title !== title) t.li.title = t.title = title;
    });
  }

  flash(index) {
    this.tiles[index].li.animate?.([{ outline: "3px solid var(--accent)" }, { outline: "3px solid transparent" }], { duration: 2500 });
  }

  counters(tally, inflight, now) {
    const t = tally.total;
    const put = (id, n, text = number.format(n)) => {
      const e = $(id);
      if (e.dataset.value === String(n)) return;
      e.dataset.value = n;
      e.textContent = text;
    };
    put("received", t.received);
    put("inflight", inflight);
    for (const id of ["lost", "repeated", "reordered", "broken", "exits"]) put(id, t[id]);
    put("pause", Math.round(t.longest), t.received ? pause(t.longest) : "–");
    if (t.longestResume > 0) set($("pause-sub"), `${pause(t.longestResume)} across a router’s exit`);
    for (const id of ["lost", "repeated", "reordered", "broken"]) $(id).parentNode.classList.toggle("bad", t[id] !== 0);
    this.samples.push([now, t.received]);
    while (this.samples[0][0] < now - 2000) this.samples.shift();
    const [then, was] = this.samples[0];
    if (now > then) set($("rate"), `${number.format(Math.round(((t.received - was) * 1000) / (now - then)))} a second`);
    if (t.received === 0) return;
    const v = $("verdict");
    v.dataset.ok = tally.clean ? "yes" : "no";
    v.dataset.begun = "yes";
    set(v, tally.clean ? "Nothing lost, repeated or reordered. No socket broken." : "Something broke. Please tell us how.");
  }

  // row finds or makes the entry of an action in the log.
  row(id) {
    let r = this.rows.get(id);
    if (r) return r;
    const li = this.entry();
    const title = make("b");
    const effect = make("span", "effect");
    const verdict = make("span", "outcome");
    li.append(title, verdict, effect);
    r = { li, title, effect, verdict };
    this.rows.set(id, r);
    return r;
  }

  entry() {
    const list = $("log");
    list.querySelector(".empty")?.remove();
    const li = make("li");
    const time = make("time", "", new Date().toLocaleTimeString("en-GB"));
    li.append(time);
    list.prepend(li);
    while (list.children.length > 60) list.lastChild.remove();
    return li;
  }

  note(tone, title, detail) {
    const li = this.entry();
    li.className = `note ${tone}`;
    li.append(make("b", "", title), make("span", "effect", detail));
  }

  log(windows) {
    for (const w of [...windows].reverse()) {
      const r = this.row(w.action.id);
      const bad = [["lost", w.lost], ["repeated", w.repeated], ["reordered", w.reordered]].filter(([, n]) => n !== 0).map(([name, n]) => `${n} ${name}`);
      if (w.broken > 0) bad.push(`${plural(w.broken, "socket")} broken`);
      set(r.title, names.action(w.action));
      const parts = [];
      if (w.action.error) parts.push(w.action.error);
      if (w.moved.size > 0) parts.push(`${plural(w.moved.size, "partition")} moved`);
      if (w.exits > 0 && w.longestResume === 0) parts.push(`${plural(w.exits, "socket")} closed by the router`);
      if (w.exits > 0 && w.longestResume > 0) parts.push(`${plural(w.exits, "client")} reconnected with ${w.exits === 1 ? "its cursor" : "their cursors"}, after ${pause(w.longestResume)} at most`);
      parts.push(`${plural(w.received, "record")} arrived`, `longest pause ${pause(w.longest)}`);
      set(r.effect, parts.join(" · "));
      const running = !w.action.done;
      set(r.verdict, bad.length > 0 ? bad.join(", ") : w.action.error ? "failed" : running ? "under way" : w.open ? "nothing broke so far" : "nothing broke");
      r.li.className = bad.length > 0 || w.action.error ? "bad" : w.open ? "open" : "good";
      r.li.dataset.kind = w.action.kind;
      r.li.dataset.done = w.action.done ? "yes" : "no";
      r.li.dataset.pause = Math.round(w.longest);
      r.li.dataset.moved = w.moved.size;
    }
  }
}

function calm() { return matchMedia("(prefers-reduced-motion: reduce)").matches; }
