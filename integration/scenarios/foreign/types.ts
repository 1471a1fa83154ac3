// What TypeScript programs rely on: compiled, never run.
import { closeCodes, connect, PointsmanError, type PointsmanGap, type PointsmanRecord } from "../../../pkg/clientjs/client.js";

interface Reading { celsius: number }

export async function program(abort: AbortController): Promise<string | undefined> {
  const stream = connect<Reading>(["wss://a.example.com", new URL("wss://b.example.com")], {
    key: new Uint8Array([1]),
    cursor: null,
    from: 17,
    token: async (why: "connect" | "expiring") => (why === "connect" ? "a.b.c" : null),
    storage: { load: () => localStorage.getItem("cursor"), save: (cursor) => localStorage.setItem("cursor", cursor) },
    signal: abort.signal,
    WebSocket: globalThis.WebSocket,
    network: window,
    onGap: async (gap: PointsmanGap) => { const from: number | null = gap.from; return from; },
    onState: (s) => {
      if (s.state === "retrying") { const error: PointsmanError = s.error; const wait: number = s.wait; return void [error.code, wait]; }
      // @ts-expect-error only "retrying" and "goaway" have a wait
      return void s.wait;
    },
  });
  for await (const record of stream) {
    const same: PointsmanRecord<Reading> = record;
    const celsius: number = same.value.celsius;
    const when: number | null = record.timestamp;
    if (celsius > 100 || when === null) { stream.commit(); break; }
  }
  await stream.close();
  const several = connect(["wss://a.example.com"], { keys: ["alice", new Uint8Array([255])], onKey: ({ type, key, reason }) => console.log(type, key, reason) });
  several.subscribe("bob", { from: "earliest" });
  several.unsubscribe("bob");
  // @ts-expect-error the key is text or bytes
  connect("wss://a.example.com", { key: 7 });
  const retry: boolean | undefined = closeCodes[1001]?.retry;
  return retry ? stream.cursor : undefined;
}
