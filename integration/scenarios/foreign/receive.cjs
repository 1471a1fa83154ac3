// Prints every message of a Pointsman router until so many records came: receive.cjs URL RECORDS.
const WebSocket = require("ws");

let records = Number(process.argv[3]);
const socket = new WebSocket(process.argv[2]);
socket.on("message", (data) => {
  const text = data.toString();
  console.log(text);
  if (JSON.parse(text).type === "record" && --records === 0) socket.close();
});
socket.on("error", (err) => {
  console.error(err.message);
  process.exit(1);
});
