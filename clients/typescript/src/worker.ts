// A worker that executes the job types of the conformance suite of workers (docs/workers.md). What is about these types
// is here; the rest is in session.ts.

import { appendFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { LogEntry_Severity } from "../gen/atlas/v1/job_pb.js";
import { WorkerService } from "../gen/atlas/v1/worker_service_pb.js";
import { Failure, Worker, type Handler } from "./session.js";

const SLOTS = 16;
/** What jobs have to end at SIGTERM, in milliseconds. */
const DRAIN = 2_000;

const handlers: Record<string, Handler> = {
  "check.echo": async (job) => job.payload.value,

  "check.steps": async (job) => {
    const { steps } = job.payload;
    for (let step = 1; step <= steps; step++) {
      const message = `step ${step}`;
      job.tell({
        progress: { current: step, total: steps, message },
        logs: [{ severity: LogEntry_Severity.INFO, message }],
      });
    }
    return steps;
  },

  "check.fail": async (job) => {
    const { message, reason, final } = job.payload;
    throw new Failure(message, reason, final);
  },

  "check.tick": async (job, signal) => {
    const { seconds, file } = job.payload;
    const end = performance.now() + seconds * 1_000;
    appendFileSync(file, "begin\n");
    while (performance.now() < end) {
      appendFileSync(file, "tick\n");
      await pause(Math.min(100, Math.max(0, end - performance.now())), undefined, { signal });
    }
    appendFileSync(file, "end\n");
  },
};

const [target] = process.argv.slice(2);
if (!target) throw new Error("usage: worker HOST:PORT");
const baseUrl = `http://${target}`;
const sessionManager = new Http2SessionManager(baseUrl);
const service = createClient(WorkerService, createGrpcTransport({ baseUrl, sessionManager }));
const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort());
await new Worker(service, "typescript", SLOTS, handlers).run(stop.signal, DRAIN);
sessionManager.abort();
