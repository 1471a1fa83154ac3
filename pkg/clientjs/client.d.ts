// Types of client.js; README.md beside it explains the options.

/** A record of the topic. T is the type of JSON values. */
export interface PointsmanRecord<T = unknown> {
  type: "record";
  /** Continues after this record (with several keys: for its key alone). */
  cursor: string;
  /** The client key; bytes when it is not UTF-8. */
  key: string | Uint8Array | undefined;
  partition: number;
  offset: number;
  /** Milliseconds since the Unix epoch; null when the record has none. */
  timestamp: number | null;
  /** In their order, with repetitions. */
  headers: { key: string | Uint8Array | undefined; value: string | Uint8Array | null }[];
  /** How the value came: JSON is parsed, other UTF-8 is a string, anything else bytes; "none" is a tombstone. */
  format: "json" | "text" | "bytes" | "none";
  /** T for "json", string for "text", Uint8Array for "bytes", null for "none". */
  value: T;
  tombstone: boolean;
}

/** The records [from, to) of a partition can no longer be delivered. */
export interface PointsmanGap {
  type: "gap";
  cursor: string;
  key: string | Uint8Array | undefined;
  /** "retention", "replay_limit", "topic", "truncated", "too_large", "moved"; more may come. */
  reason: string;
  partition: number;
  /** null when not known. */
  from: number | null;
  to: number;
}

/** What the router says about one of several keys. */
export interface PointsmanKeyNews {
  type: "subscribed" | "unsubscribed" | "refused";
  key: string | Uint8Array | undefined;
  cursor?: string;
  /** Of "subscribed": whether it goes on where its cursor says; false without one. */
  resumed?: boolean;
  /** Of "refused": what was refused, a reason for programs and one for people. */
  of?: "subscribe" | "unsubscribe";
  reason?: string;
  detail?: string;
}

export type PointsmanState =
  | { state: "connecting"; url: string }
  /** Records flow, or would. resumed: with a cursor, false when a gap follows. */
  | { state: "open"; url: string; resumed?: boolean; heartbeat?: number }
  /** No node serves the key at the moment; the connection stays. */
  | { state: "waiting" }
  /** The program does not keep up; what is queued is bounded. */
  | { state: "paused" }
  /** The router is about to stop, and asks to stay away for so many milliseconds. */
  | { state: "goaway"; wait: number }
  /** Another attempt follows in so many milliseconds, or when the network is back. */
  | { state: "retrying"; error: PointsmanError; wait: number; offline: boolean }
  | { state: "closed"; error?: unknown };

export interface CursorStorage {
  /** The cursor that was saved last; nothing when there is none. */
  load(): string | null | undefined | Promise<string | null | undefined>;
  save(cursor: string): unknown;
}

export interface ConnectOptions {
  /** The client key, for routers without authentication. */
  key?: string | Uint8Array;
  /** Several client keys on one connection, in place of key; subscribe and unsubscribe change them. With tokens that name
   *  several, [] follows them all, until the program subscribes or unsubscribes: from then on those it has. */
  keys?: (string | Uint8Array)[];
  /** With keys: hears of keys that are followed from now on, no longer, or that the router refuses. */
  onKey?: (news: PointsmanKeyNews) => void;
  /** A JWT, or what gives one: before every connection, and when the router says that the last one expires. */
  token?: string | ((why: "connect" | "expiring") => string | null | undefined | Promise<string | null | undefined>);
  /** Continue here. Goes before storage. */
  cursor?: string | null;
  /** Where to begin without a cursor: "latest" (the default), "earliest", an RFC 3339 time, an offset. */
  from?: string | number;
  /** Where the cursor outlives the program. */
  storage?: CursorStorage;
  /** At most one save in so many milliseconds; 1000. */
  saveEvery?: number;
  /** Hears of records that can no longer be delivered, in their place among the records. A promise is waited for. */
  onGap?: (gap: PointsmanGap) => unknown;
  onState?: (state: PointsmanState) => void;
  /** Ends the stream; iteration throws its reason. */
  signal?: AbortSignal;
  /** Bounds of the wait between attempts, in milliseconds; 200 and 15000. */
  minBackoff?: number;
  maxBackoff?: number;
  /** Milliseconds for one attempt; 10000. */
  connectTimeout?: number;
  /** Give up after so many attempts in a row that made no connection; never. */
  maxAttempts?: number;
  /** How many records, and characters of them, may wait for the program; 1000 and 8 Mi. */
  maxQueue?: number;
  maxQueueSize?: number;
  /** Reads a message; JSON.parse. */
  parse?: (text: string) => any;
  /** A WebSocket class, where there is no global one (Node before 22): for instance that of the package ws. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** What tells "online", "offline" and "pagehide"; the window. null: nobody. */
  network?: EventTarget | null;
}

export interface StreamStats {
  connections: number;
  lost: number;
  records: number;
  repeats: number;
  gaps: number;
  renewals: number;
  pauses: number;
  saveErrors: number;
}

export interface PointsmanStream<T = unknown> extends AsyncIterableIterator<PointsmanRecord<T>> {
  /** Where another client would continue: behind the last record that the program is done with. */
  readonly cursor: string | undefined;
  readonly state: "idle" | PointsmanState["state"];
  readonly stats: StreamStats;
  next(): Promise<IteratorResult<PointsmanRecord<T>, undefined>>;
  /** Says that the program is done with the record it has; call it before leaving a loop by break. */
  commit(): void;
  /** With options.keys: follows a key more, from its cursor, or where from says. onKey hears the answer. */
  subscribe(key: string | Uint8Array, start?: { cursor?: string; from?: string | number }): void;
  /** With options.keys: follows a key less. */
  unsubscribe(key: string | Uint8Array): void;
  /** Ends the stream. The cursor is saved when the promise is kept. */
  close(): Promise<void>;
  [Symbol.asyncIterator](): PointsmanStream<T>;
}

/** Makes a stream of records from one of the routers. It connects when the first record is asked for. */
export function connect<T = unknown>(url: string | URL | (string | URL)[], options?: ConnectOptions): PointsmanStream<T>;

/** What the router's close codes mean, and whether to connect again. */
export const closeCodes: Readonly<Record<number, { name: string; retry: boolean }>>;

export interface PointsmanErrorDetail {
  code?: number;
  status?: number;
  reason?: string;
  retry?: boolean;
  retryAfter?: number;
  cause?: unknown;
}

/** Why a connection ended or could not be made. */
export class PointsmanError extends Error {
  constructor(message: string, detail?: PointsmanErrorDetail);
  /** The close code, 0 for none. */
  readonly code: number;
  /** The HTTP status in place of a connection, 0 for none (a browser is not told it). */
  readonly status: number;
  readonly reason: string;
  /** Whether the same may succeed later; a stream that throws has an error for which it is false. */
  readonly retry: boolean;
  /** Milliseconds that the router asks to wait; 0 for none. */
  readonly retryAfter: number;
}
