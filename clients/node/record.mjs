// Records a room: starts a task, watches what happens, stops it, and lists the files.
//
//   node record.mjs HOST:PORT APP ROOM [--seconds N] [--until-left USER]
//
// It stops the task after N seconds, when USER has left the room, or when a line comes on standard input, whichever is
// first, and ends when every file is in the store. Each line on standard output is one JSON object.
//
// 64-bit integers are strings: a JavaScript number holds them exactly only up to 2^53.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const PROTO_ROOT = fileURLToPath(new URL("../../proto", import.meta.url));
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 10_000;
const RESUMABLE = new Set([
  grpc.status.UNAVAILABLE,
  grpc.status.CANCELLED,
  grpc.status.DEADLINE_EXCEEDED,
  grpc.status.INTERNAL,
]);

const api = grpc.loadPackageDefinition(
  loadSync(["roomtape/v1/task.proto", "roomtape/v1/event.proto", "roomtape/v1/file.proto"], {
    includeDirs: [PROTO_ROOT],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
).roomtape.v1;

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function caller(client) {
  return (method, request) =>
    new Promise((resolve, reject) => {
      client[method](request, { deadline: Date.now() + 30_000 }, (error, reply) =>
        error ? reject(error) : resolve(reply),
      );
    });
}

async function* watch(client, request) {
  let token = request.resume_token;
  let wait = FIRST_WAIT_MS;
  for (;;) {
    const stream = client.WatchEvents({ ...request, resume_token: token });
    try {
      for await (const message of stream) {
        token = message.resume_token;
        wait = FIRST_WAIT_MS;
        if (message.item === "event") {
          yield message.event;
        }
      }
      return;
    } catch (error) {
      if (!RESUMABLE.has(error.code)) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, Math.random() * wait));
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    } finally {
      stream.cancel();
    }
  }
}

async function main(target, app, room, options) {
  const plain = grpc.credentials.createInsecure();
  const recording = new api.RecordingService(target, plain);
  const watching = new api.WatchService(target, plain);
  const files = new api.FileService(target, plain);
  const call = caller(recording);

  const started = await call("StartRecord", {
    app_id: app,
    room_id: room,
    mode: "RECORD_MODE_SINGLE_AND_MIXED",
    request_id: randomUUID(),
  });
  const task = { app_id: app, task_id: started.task.task_id };
  print({ what: "started", task: started.task });

  let stopping;
  const stop = (why) => {
    stopping ??= call("StopRecord", { ...task, request_id: randomUUID() }).then(({ task }) =>
      print({ what: "stopped", why, task }),
    );
  };
  const timer = options.seconds && setTimeout(stop, options.seconds * 1000, "time");
  const input = createInterface({ input: process.stdin }).once("line", () => stop("told"));

  const request = { app_id: app, resume_token: started.resume_token, filter: { room_ids: [room] } };
  for await (const event of watch(watching, request)) {
    print({ what: "event", event });
    if (event.type === "EVENT_TYPE_PARTICIPANT_LEFT" && event.participant.user_id === options["until-left"]) {
      stop("left");
    }
    if (event.type === "EVENT_TYPE_TASK_FILES_COMPLETE" && event.task_id === task.task_id) {
      break;
    }
  }
  await stopping;
  clearTimeout(timer);
  input.close();
  process.stdin.destroy();

  const info = await call("DescribeRecordInfo", task);
  const list = await caller(files)("ListFiles", task);
  print({ what: "done", task: info.task, segments: info.segments, files: list.files });
  for (const client of [recording, watching, files]) {
    client.close();
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string" }, "until-left": { type: "string" } },
});
if (positionals.length !== 3) {
  process.stderr.write("usage: node record.mjs HOST:PORT APP ROOM [--seconds N] [--until-left USER]\n");
  process.exit(2);
}
main(...positionals, values).catch((error) => {
  const requestId = error.metadata?.get("x-request-id")[0];
  print({ what: "error", code: grpc.status[error.code], message: error.details ?? String(error), request_id: requestId });
  process.exit(1);
});
