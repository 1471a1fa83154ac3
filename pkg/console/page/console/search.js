// Where a key is. The key is kept in the address, so that a colleague can be sent there.
import { $, facts, number, rows, say, since } from "./dom.js";

export class Search {
  constructor() {
    this.query = null; // what is asked for, null for nothing
    this.asked = 0;
    $("find").addEventListener("submit", (event) => {
      event.preventDefault();
      this.find($("key").value, $("base64").checked);
    });
    addEventListener("hashchange", () => this.read());
    this.read();
  }

  show(status) {
    $("search").hidden = status.of !== "router";
  }

  read() {
    const hash = new URLSearchParams(location.hash.slice(1));
    for (const name of ["key_b64", "key"]) {
      if (!hash.has(name)) continue;
      $("key").value = hash.get(name);
      $("base64").checked = name === "key_b64";
      this.set(name, hash.get(name));
      return;
    }
  }

  find(key, base64) {
    if (key === "") {
      this.query = null;
      $("found").hidden = true;
      history.replaceState(null, "", location.pathname);
      return;
    }
    const name = base64 ? "key_b64" : "key";
    history.replaceState(null, "", "#" + new URLSearchParams({ [name]: key }));
    this.set(name, key);
  }

  set(name, key) {
    this.query = { name, key };
    this.refresh();
  }

  async refresh() {
    if (!this.query || document.hidden) return;
    const number = ++this.asked;
    let found, error;
    try {
      const response = await fetch("api/v1/where?" + new URLSearchParams({ [this.query.name]: this.query.key }), { signal: AbortSignal.timeout(10000) });
      found = await response.json();
      if (!response.ok) error = found.error || `the server says ${response.status}`;
    } catch {
      error = "the server cannot be asked";
    }
    if (number !== this.asked || !this.query) return; // somebody asked for another key meanwhile
    $("found").hidden = false;
    $("found-error").hidden = !error;
    $("found-facts").hidden = !!error;
    if (error) {
      say($("found-error"), error);
      $("found-clients").hidden = true;
      $("found-more").hidden = true;
      return;
    }
    this.tell(found);
  }

  tell(found) {
    const now = Date.now();
    const by = found.node ? `${found.node}${found.instance ? ` (instance ${found.instance})` : ""}` : "nobody";
    const all = [
      ["partition", `${found.partition} of ${found.partitions} (${found.partitioner})`],
      ["served by", by, found.node ? "" : "bad-text"],
      ["because", found.why],
    ];
    if (found.head !== undefined) all.push(["head", `${number(found.head)}, ${number(found.lag)} records not read yet`]);
    const total = found.clients_total;
    all.push(["sessions", total ? `${number(total)} on ${found.router}` : `none on ${found.router}; another router may have some`]);
    facts($("found-facts"), all);
    rows($("found-clients"), found.clients.map((c) => [
      c.remote, since(c.since, now), c.cursor ? [c, ...(c.also || [])].map((at) => `${at.partition}:${at.next}`).join(" ") : "–", c.lag === undefined ? "?" : number(c.lag),
      number(c.queued_bytes), (c.node || "nobody") + (c.moving ? ", moving" : "") + (c.protocol === "raw" ? ", raw" : ""),
      { text: c.cursor || "–", kind: "mono" },
    ]));
    $("found-more").hidden = total <= found.clients.length;
    say($("found-more"), `and ${number(total - found.clients.length)} more`);
  }
}
