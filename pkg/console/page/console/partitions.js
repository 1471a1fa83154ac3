// The table of partitions: filtered, in order, and a page at a time, because there may be thousands.
import { $, el, number, rows, say, since } from "./dom.js";

const page = 25;

// trouble is why a partition needs a look, "" if it does not.
export function trouble(p) {
  if (!p.node) return p.claimed_by ? `claimed by ${p.claimed_by}, which is not linked` : "nobody serves it";
  if (p.stand_in) return p.claimed_by ? `stands in for ${p.claimed_by}` : "stands in";
  if (p.remembered) return "owned it before; etcd holds no claim";
  if (p.claimed_by) return `an earlier owner: ${p.claimed_by} is not linked`;
  if (p.lag > 1000) return "far from its end";
  if (p.uncommitted > 1000) return `${number(p.uncommitted)} held back by open transactions`;
  return "";
}

const orders = {
  number: (a, b) => a.partition - b.partition,
  lag: (a, b) => (b.lag || 0) - (a.lag || 0) || a.partition - b.partition,
  streams: (a, b) => (b.streams || 0) - (a.streams || 0) || a.partition - b.partition,
  since: (a, b) => (Date.parse(b.since) || 0) - (Date.parse(a.since) || 0) || a.partition - b.partition,
};

export class Partitions {
  constructor() {
    this.status = null;
    this.at = 0; // first row shown
    $("filter").addEventListener("submit", (event) => event.preventDefault());
    $("filter").addEventListener("input", () => { this.at = 0; this.draw(); });
    $("earlier").addEventListener("click", () => { this.at -= page; this.draw(); });
    $("later").addEventListener("click", () => { this.at += page; this.draw(); });
  }

  filterBy(node) {
    $("by-owner").value = node;
    this.at = 0;
    this.draw();
    $("partitions").scrollIntoView({ block: "start" });
    $("by-owner").focus({ preventScroll: true });
  }

  show(status) {
    this.status = status;
    this.owners([...new Set(status.nodes.map((n) => n.id))]);
    this.draw();
  }

  owners(ids) {
    const select = $("by-owner");
    const want = ["", ...ids];
    if (want.length === select.options.length && want.every((id, i) => select.options[i].value === id)) return;
    const chosen = select.value;
    select.replaceChildren(...want.map((id) => {
      const option = el("option", "", id || "all");
      option.value = id;
      return option;
    }));
    select.value = want.includes(chosen) ? chosen : "";
  }

  draw() {
    if (!this.status) return;
    const now = Date.parse(this.status.at);
    const owner = $("by-owner").value, only = $("by-trouble").checked, wanted = $("by-number").value.trim();
    const all = this.status.partitions.filter((p) =>
      (!owner || p.node === owner) && (!only || (this.status.of !== "node" && trouble(p))) && (!wanted || String(p.partition) === wanted));
    all.sort(orders[$("by-order").value]);
    this.at = Math.max(0, Math.min(this.at, Math.floor(Math.max(0, all.length - 1) / page) * page));
    const shown = all.slice(this.at, this.at + page);
    const alone = this.status.of === "node";
    rows($("partition-table"), shown.map((p) => {
      const has = (n) => (p.reading ? number(n) : "–");
      const remark = alone ? (p.stand_in ? "attached, not claimed" : "") : trouble(p);
      return [p.partition, p.node || "nobody", p.generation ? number(p.generation) : "–", since(p.since, now),
        has(p.head), has(p.lag), has(p.streams), has(p.behind), { text: remark, kind: "text" }];
    }), shown.map((p) => (alone ? "" : !p.node ? "bad" : trouble(p) ? "warn" : "")));
    say($("partitions-sub"), `${number(all.length)} of ${number(this.status.partitions.length)}`);
    const pages = Math.ceil(all.length / page);
    $("earlier").parentElement.hidden = pages < 2;
    $("earlier").disabled = this.at === 0;
    $("later").disabled = this.at + page >= all.length;
    say($("pages"), `${this.at / page + 1} of ${Math.max(1, pages)}`);
  }
}
