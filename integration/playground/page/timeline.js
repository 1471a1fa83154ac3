// The last minute as a picture: for each fifth of a second the slowest record's delay, on a logarithmic scale, and
// a line for each thing that was done.

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
    this.canvas.width = Math.round(box.width * scale);
    this.canvas.height = Math.round(box.height * scale);
    this.scale = scale;
  }

  delay(ms) {
    const at = Math.floor(Date.now() / width) * width;
    const last = this.buckets.at(-1);
    if (last?.at === at) {
      last.max = Math.max(last.max, ms);
      return;
    }
    this.buckets.push({ at, max: ms });
    while (this.buckets[0].at < at - span) this.buckets.shift();
  }

  mark(label, at) {
    this.marks.push({ label, at });
    while (this.marks[0].at < Date.now() - span) this.marks.shift();
  }

  y(ms) {
    const share = Math.log(Math.max(least, ms) / least) / Math.log(most / least);
    return this.h - 4 - Math.min(1, share) * (this.h - 24);
  }

  draw() {
    const c = this.canvas.getContext("2d");
    if (!this.colours) {
      const css = getComputedStyle(document.documentElement);
      const pick = (name) => css.getPropertyValue(name).trim();
      this.colours = { line: pick("--line"), faint: pick("--faint"), bar: pick("--accent"), slow: pick("--warn"), text: pick("--text") };
      this.font = `11px ${pick("--sans")}`;
    }
    const { line, faint, bar, slow, text } = this.colours;
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
      c.fillRect(px, y, thick, this.h - y);
    }
    this.drawMarks(c, x, left, faint, text);
  }

  drawMarks(c, x, left, faint, text) {
    const ends = [0, 0, 0]; // of the labels in each row
    for (const m of this.marks) {
      const px = x(m.at);
      if (px < left) continue;
      const wide = c.measureText(m.label).width;
      const start = Math.min(px + 5, this.w - wide - 2);
      let row = ends.findIndex((end) => start > end);
      if (row < 0) row = ends.length - 1;
      ends[row] = start + wide + 8;
      c.fillStyle = faint;
      c.fillRect(Math.round(px), 0, 1, this.h);
      c.fillStyle = text;
      c.fillText(m.label, start, 8 + row * 14);
    }
  }
}
