// Hypercore 11, two processes: one's log of N records to an empty reader, then both append to a log of their own.
//     node hypercore.mjs FACTS DIFFER FOLDER
import { fork } from "node:child_process";
import net from "node:net";
import Hypercore from "hypercore";
import { pause, record, relay, rssMB, seconds } from "./line.mjs";

const [, script, factsText, differText, folder, role] = process.argv;
const facts = Number(factsText), half = Number(differText) / 2;
const block = (number) => JSON.stringify(record(number));
const open = async (name, key) => {
  const core = new Hypercore(`${folder}/${role ?? "one"}-${name}`, key);
  await core.ready();
  return core;
};
const join = (socket, initiator, cores) => {
  const stream = cores[0].replicate(initiator);
  for (const core of cores.slice(1)) core.replicate(stream);
  socket.pipe(stream).pipe(socket);
  for (const end of [socket, stream]) end.on("error", () => {});
};

async function reader() {
  const own = await open("own");
  let other;
  process.on("message", async ({ key, append }) => {
    if (key) {
      other = await open("other", Buffer.from(key, "hex"));
      other.download({ start: 0, end: -1 });
      const server = net.createServer((socket) => join(socket, false, [own, other]));
      server.listen(0, "127.0.0.1", () => process.send({ key: own.key.toString("hex"), port: server.address().port }));
    } else if (append) {
      for (let number = 0; number < append; number++) await own.append(block(1e6 + number));
      process.send({});
    } else process.send({ has: other.contiguousLength, rss: rssMB() });
  });
}

async function writer() {
  const own = await open("own");
  for (let at = 0; at < facts; at += 100)
    await own.append(Array.from({ length: Math.min(100, facts - at) }, (_, more) => block(at + more)));
  const child = fork(script, [factsText, differText, folder, "two"]);
  const ask = (what) => new Promise((done) => { child.once("message", done); child.send(what); });
  await pause(500);
  const { key, port } = await ask({ key: own.key.toString("hex") });
  const other = await open("other", Buffer.from(key, "hex"));
  other.download({ start: 0, end: -1 });
  const line = await relay(port);
  let wanted = 0, rss = 0;
  const sync = async () => {
    const before = line.bytes, began = performance.now();
    const socket = net.connect(line.port, "127.0.0.1");
    join(socket, true, [other, own]);
    for (;;) {
      const state = await ask({});
      rss = Math.max(rss, state.rss, rssMB());
      if (state.has === own.length && other.contiguousLength === wanted) break;
      await pause(2);
    }
    const took = seconds(began);
    await pause(400);
    socket.destroy();
    await pause(200);
    return { seconds: took, wire_bytes: line.bytes - before };
  };
  const first = await sync();
  const quiet = await sync();
  for (let number = 0; number < half; number++) await own.append(block(2e6 + number));
  await ask({ append: half });
  wanted = half;
  const differ = await sync();
  console.log(JSON.stringify({ first, differ, quiet: quiet.wire_bytes, rss_mb: rss }));
  child.kill();
  process.exit(0);
}

await (role ? reader() : writer());
