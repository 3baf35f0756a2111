// Automerge 3, two processes, one document with one change per record; its sync protocol over TCP.
//     node automerge.mjs FACTS DIFFER FOLDER
import { fork } from "node:child_process";
import net from "node:net";
import * as Automerge from "@automerge/automerge";
import { key, record, relay, rssMB, seconds } from "./line.mjs";

const [, script, factsText, differText, folder, role] = process.argv;
const facts = Number(factsText), half = Number(differText) / 2;
let doc = Automerge.init();

const frame = (data) => {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(data.length);
  return Buffer.concat([head, data]);
};
const onFrame = (socket, take) => {
  let rest = Buffer.alloc(0);
  socket.on("data", (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
      const length = rest.readUInt32BE(0);
      take(rest.subarray(4, 4 + length));
      rest = rest.subarray(4 + length);
    }
  });
};
const edit = (numbers) => {
  for (const number of numbers)
    doc = Automerge.change(doc, { time: 0 }, (now) => { now[key(number)].content = record(number).content; });
};

function server() {
  const listening = net.createServer((socket) => {
    let state = Automerge.initSyncState();
    onFrame(socket, (message) => {
      [doc, state] = Automerge.receiveSyncMessage(doc, state, message);
      let answer;
      [state, answer] = Automerge.generateSyncMessage(doc, state);
      socket.write(frame(answer ?? Buffer.alloc(0)));
    });
    socket.on("error", () => {});
  }).listen(0, "127.0.0.1", () => process.send({ port: listening.address().port }));
  process.on("message", ({ numbers }) => { edit(numbers); process.send({ rss: rssMB() }); });
}

async function client() {
  for (let number = 0; number < facts; number++)
    doc = Automerge.change(doc, { time: 0 }, (now) => { now[key(number)] = record(number); });
  const child = fork(script, [factsText, differText, folder, "two"]);
  const told = () => new Promise((done) => child.once("message", done));
  const line = await relay((await told()).port);
  const sync = () => new Promise((done) => {
    const before = line.bytes, began = performance.now();
    const socket = net.connect(line.port, "127.0.0.1");
    let state = Automerge.initSyncState();
    const say = () => {
      let message;
      [state, message] = Automerge.generateSyncMessage(doc, state);
      if (message) socket.write(frame(message));
      else socket.end(() => done({ seconds: seconds(began), wire_bytes: line.bytes - before }));
    };
    onFrame(socket, (message) => {
      if (message.length) [doc, state] = Automerge.receiveSyncMessage(doc, state, message);
      say();
    });
    say();
  });
  const first = await sync();
  const quiet = await sync();
  edit(Array.from({ length: half }, (_, number) => number));
  child.send({ numbers: Array.from({ length: half }, (_, number) => half + number) });
  const rss = Math.max(rssMB(), (await told()).rss);
  const differ = await sync();
  console.log(JSON.stringify({ first, differ, quiet: quiet.wire_bytes, rss_mb: rss }));
  child.kill();
  process.exit(0);
}

await (role ? server() : client());
