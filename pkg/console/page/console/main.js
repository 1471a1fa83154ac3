// Asks the server that this page came from, again and again, and shows what it answers.
import { $, ago, grow, say } from "./dom.js";
import { show } from "./view.js";
import { Partitions } from "./partitions.js";
import { Search } from "./search.js";

const every = 2000; // milliseconds between two questions, while somebody can see the page
const patience = 10000;

const partitions = new Partitions();
const search = new Search();
let heard = 0; // when the last answer came
let failing = "";
let failures = 0; // in a row: one alone may be a machine that slept

async function ask() {
  if (document.hidden && heard) return;
  try {
    const response = await fetch("api/v1/status", { signal: AbortSignal.timeout(patience), headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`the server says ${response.status}`);
    const status = await response.json();
    heard = Date.now();
    failing = "";
    failures = 0;
    show(status, (node) => partitions.filterBy(node));
    partitions.show(status);
    search.show(status);
  } catch (error) {
    if (++failures > 1 || !heard) failing = error.name === "TimeoutError" ? "it does not answer" : "it cannot be reached";
  }
  await search.refresh();
  tell();
}

function tell() {
  document.body.classList.toggle("stale", failing !== "");
  if (!failing) {
    say($("age"), `asked ${ago(Date.now() - heard)} ago, by this server’s own word`);
    return;
  }
  const old = heard ? `; what is shown is ${ago(Date.now() - heard)} old` : "";
  $("verdict").dataset.state = "bad";
  say($("verdict"), "no answer");
  const list = $("problems").firstElementChild;
  const [item] = grow(list, 1, "li");
  say(item, `This server is asked again and again, but ${failing}${old}.`);
  $("problems").hidden = false;
  say($("age"), `no answer${old}`);
}

async function forever() {
  for (;;) {
    await ask();
    await new Promise((done) => {
      const timer = setTimeout(done, failures === 1 ? every / 4 : every);
      document.addEventListener("visibilitychange", () => { clearTimeout(timer); done(); }, { once: true });
    });
  }
}

// The colours: as the system has them, or as chosen here.
const themes = ["auto", "dark", "light"];
function dress(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme[0].toUpperCase() + theme.slice(1);
  $("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system" : theme}`);
}
let theme = "auto";
try {
  theme = themes.includes(localStorage.theme) ? localStorage.theme : "auto";
} catch { /* no storage: the choice lasts as long as the page */ }
dress(theme);
$("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  dress(theme);
  try { localStorage.theme = theme; } catch { /* as above */ }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !event.ctrlKey && !event.metaKey && !$("search").hidden) {
    event.preventDefault();
    $("key").focus();
    $("key").select();
  }
});

setInterval(tell, 1000);
forever();
