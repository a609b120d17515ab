// Receives webhooks, verifies their signatures and prints them. It needs Node alone.
//
//   ROOMTAPE_WEBHOOK_KEY=whsec_… node webhooks.mjs [--port N] [--format roomtape|gme|trtc|trtc-classic|volc]
//
// The variable may have several keys, with spaces between them, while keys overlap. Each line on standard output is one
// JSON object: where it listens, then each webhook with its body as it came.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const MAX_BODY_BYTES = 1 << 20;
const TOLERANCE_SECONDS = 300;

class Refused extends Error {}

const hmac = (algorithm, key, data) => createHmac(algorithm, key).update(data).digest("base64");
const digest = (algorithm, text) => createHash(algorithm).update(text, "utf8").digest("hex");
const now = () => Math.floor(Date.now() / 1000);

function isSame(given, expected) {
  const [one, other] = [Buffer.from(given ?? ""), Buffer.from(expected)];
  return one.length === other.length && timingSafeEqual(one, other);
}

function demand(condition, why) {
  if (!condition) throw new Refused(why);
}

// Each takes headers, the body's bytes and a key, and says whether the key signed them.
const isSigned = {
  // Standard Webhooks 1.0.0
  roomtape(headers, body, key) {
    const signed = Buffer.concat([
      Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`),
      body,
    ]);
    const expected = `v1,${hmac("sha256", Buffer.from(key.slice("whsec_".length), "base64"), signed)}`;
    return (headers["webhook-signature"] ?? "").split(" ").some((given) => isSame(given, expected));
  },
  gme: (headers, body, key) => isSame(headers["signature"], hmac("sha1", key, body)),
  trtc: (headers, body, key) => isSame(headers["sign"], hmac("sha256", key, body)),
  "trtc-classic"(headers, body, key) {
    const { t, sign } = JSON.parse(body);
    return isSame(sign, digest("md5", `${key}${t}`));
  },
  volc(headers, body, key) {
    const { Signature, ...others } = JSON.parse(body);
    return isSame(Signature, digest("sha256", [...Object.values(others), key].sort().join("")));
  },
};

// When it was sent, where the format signs that, in Unix seconds.
const sentSeconds = {
  roomtape: (headers) => Number(headers["webhook-timestamp"]),
  "trtc-classic": (headers, body) => JSON.parse(body).t - 600,
};

function verify(format, headers, body, keys) {
  let signed;
  try {
    signed = keys.some((key) => isSigned[format](headers, body, key));
  } catch (error) {
    throw new Refused(`the body can't be read: ${error.message}`);
  }
  demand(signed, "no key signed it");
  const sent = sentSeconds[format]?.(headers, body) ?? now();
  const tolerance = format === "roomtape" ? TOLERANCE_SECONDS : 600;
  demand(Math.abs(now() - sent) <= tolerance, "it is too old, or from the future");
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    demand(size <= MAX_BODY_BYTES, "it is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const { values } = parseArgs({
  options: { port: { type: "string", default: "0" }, format: { type: "string", default: "roomtape" } },
});
const keys = (process.env.ROOMTAPE_WEBHOOK_KEY ?? "").split(" ").filter(Boolean);
if (!(values.format in isSigned) || keys.length === 0) {
  process.stderr.write("usage: ROOMTAPE_WEBHOOK_KEY=KEY node webhooks.mjs [--port N] [--format FORMAT]\n");
  process.exit(2);
}

const server = createServer(async (request, response) => {
  try {
    demand(request.method === "POST", "webhooks are sent by POST");
    const body = await read(request);
    verify(values.format, request.headers, body, keys);
    // Not parsed here: 64-bit numbers of some vendors are numbers that JavaScript has not.
    print({ what: "webhook", headers: request.rawHeaders, body: body.toString("utf8") });
    response.writeHead(200, { "Content-Type": "application/json" }).end('{"code":0}');
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    print({ what: "refused", why: error.message });
    response.writeHead(401).end(error.message);
  }
});
server.listen(Number(values.port), "127.0.0.1", () => {
  print({ what: "listening", port: server.address().port });
});
