// The counters, in all and for each action while its effect lasts.

const settle = 10_000; // ms after an action's end: Kafka's group notices a killed node after six seconds

const zero = () => ({ received: 0, lost: 0, repeated: 0, reordered: 0, broken: 0, exits: 0, longest: 0, longestResume: 0 });

export class Tally {
  constructor() {
    this.total = zero();
    this.windows = []; // one for each action, the newest first
    this.floor = Infinity; // least delay so far
    this.onDelay = () => {};
  }

  count(name, by) {
    this.total[name] += by;
    for (const w of this.windows) if (w.open) w[name] += by;
  }

  // record counts a record made at a time. resumed: its client had no socket then.
  record(at, resumed) {
    let delay = Date.now() - at;
    this.count("received", 1);
    this.floor = Math.min(this.floor, delay);
    // Two clocks that differ are two machines; then the least delay is taken for none.
    if (this.floor < -2 || this.floor > 50) delay -= this.floor;
    delay = Math.max(0, delay);
    const name = resumed ? "longestResume" : "longest";
    this.total[name] = Math.max(this.total[name], delay);
    for (const w of this.windows) if (w.open) w[name] = Math.max(w[name], delay);
    this.onDelay(at, delay);
  }

  // follow opens and closes windows. actions are the playground's, now is its clock.
  follow(actions, now) {
    for (const a of actions) {
      let w = this.windows.find((w) => w.action.id === a.id);
      if (!w) {
        if (a.done && now - a.done > settle) continue; // from before this page
        for (const old of this.windows) if (old.action.done) old.open = false; // what comes next is not its doing
        w = { ...zero(), moved: new Set(), open: true };
        this.windows.unshift(w);
        this.windows.length = Math.min(this.windows.length, 50);
      }
      w.action = a;
    }
    for (const w of this.windows) if (w.action.done && now - w.action.done > settle) w.open = false;
  }

  // moved notes that a partition is served by another node.
  moved(partition) {
    for (const w of this.windows) if (w.open) w.moved.add(partition);
  }

  get clean() {
    const t = this.total;
    return t.lost === 0 && t.repeated === 0 && t.reordered === 0 && t.broken === 0;
  }
}
