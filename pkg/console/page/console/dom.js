// What comes from outside (keys, names, zones, errors) reaches the page as text only: nothing here reads markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

// say changes a text only when it differs, so that what somebody selects stays selected.
export function say(e, text) {
  text = String(text);
  if (e.textContent !== text) e.textContent = text;
}

export function put(e, name, value) {
  if (e[name] !== value) e[name] = value;
}

// grow makes a list have n children of a tag and returns them.
export function grow(list, n, tag) {
  while (list.children.length > n) list.lastElementChild.remove();
  while (list.children.length < n) list.append(document.createElement(tag));
  return list.children;
}

// rows fills a table's body. A row is an array of cells; a cell is text, or {text, kind}. kind of a row is its class.
export function rows(table, all, kinds = []) {
  const heads = table.tHead.rows[0].cells;
  const trs = grow(table.tBodies[0], all.length, "tr");
  all.forEach((cells, i) => {
    put(trs[i], "className", kinds[i] || "");
    const tds = grow(trs[i], cells.length, "td");
    cells.forEach((cell, k) => {
      const { text, kind } = typeof cell === "object" ? cell : { text: cell, kind: "" };
      put(tds[k], "className", [heads[k].className, kind].filter(Boolean).join(" "));
      say(tds[k], text);
    });
  });
  table.hidden = all.length === 0;
  table.parentElement.classList.toggle("has-rows", all.length > 0);
}

// facts fills a list of terms and descriptions.
export function facts(dl, all) {
  const divs = grow(dl, all.length, "div");
  all.forEach(([term, text, kind], i) => {
    if (divs[i].children.length !== 2) divs[i].replaceChildren(el("dt"), el("dd"));
    say(divs[i].children[0], term);
    say(divs[i].children[1], text);
    put(divs[i], "className", kind || "");
  });
}

const numbers = new Intl.NumberFormat("en");
export const number = (n) => numbers.format(n ?? 0);

export function bytes(n) {
  if (!n) return "–";
  const gib = n / 2 ** 30;
  return gib >= 1 ? `${gib.toFixed(gib >= 10 ? 0 : 1)} GiB` : `${Math.round(n / 2 ** 20)} MiB`;
}

// ago spells milliseconds by their two largest units.
export function ago(ms) {
  let s = Math.max(0, Math.round(ms / 1000));
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d}d ${h}h`;
  if (h) return `${h}h ${m}m`;
  if (m) return `${m}m ${s % 60}s`;
  return `${s}s`;
}

export const since = (at, now) => (at ? ago(now - Date.parse(at)) : "–");
// names lists a few, one a line, and how many more there are.
export function names(list, most = 5) {
  if (!list?.length) return "nobody";
  const more = list.length - most;
  return (more > 1 ? [...list.slice(0, most), `and ${more} more`] : list).join(",\n");
}

// ranges spells ascending numbers as 0-3, 7.
export function ranges(list) {
  const out = [];
  for (let i = 0; i < list.length; ) {
    let j = i;
    while (list[j + 1] === list[j] + 1) j++;
    out.push(j > i ? `${list[i]}–${list[j]}` : `${list[i]}`);
    i = j + 1;
  }
  return out.length > 12 ? `${out.slice(0, 12).join(", ")}, …` : out.join(", ");
}
