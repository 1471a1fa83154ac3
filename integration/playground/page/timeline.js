// The last minute as a picture: for each fifth of a second in which records were made, how long the slowest of them
// was under way and how much of that passed until Kafka had it, on a logarithmic scale; and a line for each thing
// that was done.

const span = 60_000;
const width = 200;
const least = 1;
const most = 10_000;
const grid = [[10, "10 ms"], [100, "100 ms"], [1000, "1 s"], [10_000, "10 s"]];

export class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.buckets = []; // {at, max}
    this.marks = []; // {at, label}
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => { this.colours = null; });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const scale = devicePixelRatio || 1;
    const box = this.canvas.getBoundingClientRect();
    this.w = box.width;
    this.h = box.height;
    this.bottom = box.height - 18; // above the time
    this.canvas.width = Math.round(box.width * scale);
    this.canvas.height = Math.round(box.height * scale);
    this.scale = scale;
    this.draw(); // a canvas that changes its size is empty
  }

  // bucket finds or makes that of a time.
  bucket(at) {
    at -= at % width;
    let i = this.buckets.length;
    while (i > 0 && this.buckets[i - 1].at > at) i--;
    if (this.buckets[i - 1]?.at === at) return this.buckets[i - 1];
    const b = { at, max: 0, kafka: 0 };
    this.buckets.splice(i, 0, b);
    while (this.buckets[0].at < Date.now() - span - width) this.buckets.shift();
    return b;
  }

  // delay notes that a record made at a time took so many ms.
  delay(at, ms) {
    if (at < Date.now() - span) return;
    const b = this.bucket(at);
    b.max = Math.max(b.max, ms);
  }

  // acks notes how long Kafka took for the records of some moments.
  acks(list) {
    for (const a of list) if (a.at > Date.now() - span) this.bucket(a.at).kafka = a.ms;
  }

  mark(label, at) {
    this.marks.push({ label, at });
    while (this.marks[0].at < Date.now() - span) this.marks.shift();
  }

  y(ms) {
    const share = Math.log(Math.max(least, ms) / least) / Math.log(most / least);
    return this.bottom - Math.min(1, share) * (this.bottom - 20);
  }

  draw() {
    const c = this.canvas.getContext("2d");
    if (!this.colours) {
      const css = getComputedStyle(document.documentElement);
      const pick = (name) => css.getPropertyValue(name).trim();
      this.colours = { line: pick("--line"), faint: pick("--faint"), bar: pick("--accent"), slow: pick("--warn"), text: pick("--text"), card: pick("--card"), kafka: pick("--kafka") };
      this.font = `11px ${pick("--sans")}`;
    }
    const { line, faint, bar, slow, kafka } = this.colours;
    c.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    c.clearRect(0, 0, this.w, this.h);
    c.font = this.font;
    const now = Date.now();
    const left = 44;
    const x = (at) => left + (1 - (now - at) / span) * (this.w - left);

    c.textBaseline = "middle";
    for (const [ms, label] of grid) {
      const y = Math.round(this.y(ms)) + 0.5;
      c.fillStyle = line;
      c.fillRect(left, y, this.w - left, 1);
      c.fillStyle = faint;
      c.fillText(label, 0, y);
    }
    const thick = Math.max(1.5, (this.w - left) * width / span - 1);
    for (const b of this.buckets) {
      const px = x(b.at);
      if (px < left) continue;
      const y = this.y(b.max);
      c.fillStyle = b.max > 500 ? slow : bar;
      c.fillRect(px, y, thick, this.bottom - y);
      const k = this.y(Math.min(b.kafka, b.max));
      c.fillStyle = kafka;
      c.fillRect(px, k, thick, this.bottom - k);
    }
    c.fillStyle = faint;
    for (const [ago, label] of [[60, "60 s ago"], [40, "40 s"], [20, "20 s"], [0, "now"]]) {
      const wide = c.measureText(label).width;
      c.fillText(label, Math.max(left, Math.min(x(now - ago * 1000) - wide / 2, this.w - wide)), this.h - 7);
    }
    this.drawMarks(c, x, left);
  }

  drawMarks(c, x, left) {
    const { faint, text, card } = this.colours;
    const shown = this.marks.map((m) => ({ label: m.label, px: x(m.at) })).filter((m) => m.px >= left);
    c.fillStyle = faint;
    for (const m of shown) c.fillRect(Math.round(m.px), 0, 1, this.bottom);
    const ends = [0, 0, 0, 0]; // of the labels in each row
    c.lineWidth = 4;
    c.lineJoin = "round";
    c.strokeStyle = card;
    c.fillStyle = text;
    for (const m of shown) {
      const wide = c.measureText(m.label).width;
      const start = Math.min(m.px + 5, this.w - wide - 2);
      const row = ends.findIndex((end) => start > end);
      if (row < 0) continue; // too many at once: the line is there, and the log has the words
      ends[row] = start + wide + 8;
      c.strokeText(m.label, start, 8 + row * 14);
      c.fillText(m.label, start, 8 + row * 14);
    }
  }
}
