// Follows keys from the oldest record on with Pointsman's JavaScript client, and prints a line for each record:
// key, partition, offset, and how many connections and renewals there were so far.
//   follow.mjs MODULE builtin|ws URL,URL TOKENS KEY...
// With "several" in place of TOKENS, and without tokens, all keys share a connection; the last is added to it later.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [module, kind, urls, tokens, ...keys] = process.argv.slice(2);
const { connect } = await import(pathToFileURL(module));
const WebSocket = kind === "ws" ? createRequire(import.meta.url)("ws") : globalThis.WebSocket;

async function follow(key) {
  const token = async () => {
    const answer = await fetch(`${tokens}?key=${key}`);
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.text();
  };
  const onState = (s) => { if (s.error) console.log(`${new Date().toISOString()} ${key}: ${s.error.message}`); };
  const stream = connect(urls.split(","), { token, from: "earliest", WebSocket, onState, maxBackoff: 1_000, connectTimeout: 2_000 });
  for await (const r of stream) {
    console.log(`record ${r.key} ${r.partition} ${r.offset} ${stream.stats.connections} ${stream.stats.renewals}`);
  }
}

async function followAll() {
  const late = keys.pop();
  const onState = (s) => { if (s.error) console.log(`${new Date().toISOString()}: ${s.error.message}`); };
  const stream = connect(urls.split(","), { keys, from: "earliest", WebSocket, onState, onKey: (m) => console.log(m.type, m.key), maxBackoff: 1_000 });
  let records = 0;
  for await (const r of stream) {
    console.log(`record ${r.key} ${r.partition} ${r.offset} ${stream.stats.connections} 0`);
    if (++records === 10) stream.subscribe(late, { from: "earliest" });
  }
}

await (tokens === "several" ? followAll() : Promise.all(keys.map(follow)));
