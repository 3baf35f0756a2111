// PouchDB with express-pouchdb, two processes, LevelDB on disk, HTTP.
//     node pouchdb.mjs FACTS DIFFER FOLDER
import { fork } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import { key, record, relay, rssMB, seconds } from "./line.mjs";

const require = createRequire(import.meta.url);
const PouchDB = require("pouchdb");
const [, script, factsText, differText, folder, role] = process.argv;
const facts = Number(factsText), half = Number(differText) / 2;
const place = `${folder}/${role ?? "one"}/`;
fs.mkdirSync(place, { recursive: true });
process.chdir(place);
const Local = PouchDB.defaults({ prefix: place });

function server() {
  const app = require("express")();
  app.use("/", require("express-pouchdb")(Local, { mode: "minimumForPouchDB" }));
  const listening = app.listen(0, "127.0.0.1", () => process.send({ port: listening.address().port }));
  process.on("message", () => process.send({ rss: rssMB() }));
}

async function client() {
  const one = new Local("bench");
  for (let at = 0; at < facts; at += 1000)
    await one.bulkDocs(Array.from({ length: Math.min(1000, facts - at) },
      (_, more) => ({ _id: key(at + more), ...record(at + more) })));
  const child = fork(script, [factsText, differText, folder, "two"]);
  const told = () => new Promise((done) => child.once("message", done));
  const line = await relay((await told()).port);
  const two = new PouchDB(`http://127.0.0.1:${line.port}/bench`);
  await two.info();
  const sync = async () => {
    const before = line.bytes, began = performance.now();
    await Local.sync(one, two, { batch_size: 1000 });
    return { seconds: seconds(began), wire_bytes: line.bytes - before };
  };
  const update = async (database, rows) => {
    const found = await database.allDocs({ keys: rows.map((row) => row.id), include_docs: true });
    await database.bulkDocs(found.rows.map((row, number) => ({ ...row.doc, content: record(number).content })));
  };
  const first = await sync();
  await sync();
  const quiet = await sync();
  const { rows } = await one.allDocs({ limit: 2 * half });
  await update(one, rows.slice(0, half));
  await update(two, rows.slice(half));
  const differ = await sync();
  child.send({});
  const rss = Math.max(rssMB(), (await told()).rss);
  console.log(JSON.stringify({ first, differ, quiet: quiet.wire_bytes, rss_mb: rss }));
  child.kill();
  process.exit(0);
}

await (role ? server() : client());
