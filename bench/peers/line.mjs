// A TCP relay that counts bytes of both directions, and the record that every peer stores.
import crypto from "node:crypto";
import net from "node:net";

export function relay(target) {
  const line = { bytes: 0, port: 0, server: null };
  line.server = net.createServer((near) => {
    const far = net.connect(target, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", (data) => { line.bytes += data.length; });
      from.pipe(to);
      from.on("error", () => to.destroy());
    }
  });
  return new Promise((done) => line.server.listen(0, "127.0.0.1", () => {
    line.port = line.server.address().port;
    done(line);
  }));
}

export const record = (number) => ({
  type: "fact",
  project: "bench",
  content: crypto.randomBytes(100).toString("hex"),
  tags: "bench,sync",
  created: 1700000000000 + number,
  author: "node-a",
});

export const key = (number) => "fact:" + crypto.createHash("sha1").update("k" + number).digest("hex");

export const rssMB = () => Math.round(process.resourceUsage().maxRSS / 1024);

export const seconds = (since) => (performance.now() - since) / 1000;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
