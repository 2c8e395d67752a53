// Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
// another job, and reads the details of errors. It prints a line of JSON for each step.

import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";

import { toJson, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { anyUnpack, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { Job_State, type Job } from "../gen/atlas/v1/job_pb.js";
import { JobService, SubmitJobRequestSchema } from "../gen/atlas/v1/job_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";

const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 2_000;
const TRIES = 4;

/** Every unary call has a deadline. */
const CALL = { timeoutMs: 30_000 };

/** The server was not there, or the connection was cut, which Connect tells as Canceled. */
const CUT = new Set([Code.Unavailable, Code.Canceled]);

/** Repeats a unary call that the server was not there for. With a request id, that is safe for a submit too. */
const retries: Interceptor = (next) => async (request) => {
  for (let tried = 1, wait = FIRST_PAUSE; ; tried++, wait = Math.min(2 * wait, LONGEST_PAUSE)) {
    try {
      return await next(request);
    } catch (error) {
      if (!CUT.has(ConnectError.from(error).code) || request.stream || tried === TRIES) throw error;
      await pause(wait);
    }
  }
};

/** Follows one job to its end, over as many streams as it takes. */
class Follower {
  job?: Job;
  states: string[] = [];
  versions: number[] = [];
  resumed = false;
  #token = "";

  constructor(
    private readonly jobs: Client<typeof JobService>,
    private readonly id: string,
  ) {}

  /** With `cutFirst` it breaks off the first stream on purpose, to show that the next one goes on exactly. */
  async run({ cutFirst = false } = {}): Promise<this> {
    for (let wait = FIRST_PAUSE; ; wait = Math.min(2 * wait, LONGEST_PAUSE)) {
      try {
        const ended = await this.#stream(cutFirst);
        if (ended) return this;
        cutFirst = false;
      } catch (error) {
        if (!CUT.has(ConnectError.from(error).code)) throw error;
        await pause(wait);
      }
      this.resumed = this.#token !== "";
    }
  }

  /** Reads one stream. Whether it ended by itself, as the job did. */
  async #stream(onlyFirst: boolean): Promise<boolean> {
    for await (const message of this.jobs.watchJob({ id: this.id, resumeToken: this.#token })) {
      this.#token = message.resumeToken;
      this.job = message.job ?? this.job;
      for (const step of message.transitions) {
        this.states.push(Job_State[step.state]);
        this.versions.push(Number(step.version));
      }
      if (onlyFirst) return false;
    }
    return true;
  }
}

/** Submits a job twice, which makes one, and follows it to its result. */
async function success(jobs: Client<typeof JobService>): Promise<void> {
  const request = job("countdown", { steps: 8, delay: 0.1 });
  const first = await jobs.submitJob(request, CALL);
  const id = first.job!.id;
  say("submit", { job: id, created: !first.deduplicated });
  const again = await jobs.submitJob(request, CALL);
  say("submit_again", { job: again.job!.id, created: !again.deduplicated });

  const { states, versions, resumed } = await new Follower(jobs, id).run({ cutFirst: true });
  say("watch", { states, versions, resumed });

  const { output } = (await jobs.getJob({ id }, CALL)).job!;
  if (output.case !== "result") throw new Error(`no result: ${output.case}`);
  say("result", { result: toJson(ValueSchema, output.value) });
}

/** Stops a job and waits until it has stopped. */
async function cancel(jobs: Client<typeof JobService>): Promise<void> {
  const id = (await jobs.submitJob(job("sleep", { seconds: 60 }), CALL)).job!.id;
  await jobs.cancelJob({ id, reason: "an example" }, CALL);
  const { job: cancelled } = await new Follower(jobs, id).run();
  // What went wrong with a job is a status like that of a call.
  const info = cancelled!.error!.details.map((detail) => anyUnpack(detail, ErrorInfoSchema)).find(Boolean);
  say("cancel", { job: id, state: Job_State[cancelled!.state], reason: info!.reason });
}

/** Makes two mistakes and reads what the server says about them. */
async function refusals(jobs: Client<typeof JobService>): Promise<void> {
  say("error", await refusal(jobs.submitJob(job("countdown", { steps: "many" }), CALL)));
  const { code, reason } = await refusal(jobs.getJob({ id: "no-such-job" }, CALL));
  say("not_found", { code, reason });
}

async function refusal(call: Promise<unknown>): Promise<JsonObject> {
  try {
    await call;
  } catch (reason) {
    const error = ConnectError.from(reason);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [wrong] = error.findDetails(BadRequestSchema);
    const code = Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
    return { code, reason: info.reason, ...(wrong && { field: wrong.fieldViolations[0].field }) };
  }
  throw new Error("this should have been refused");
}

function job(type: string, payload: JsonObject): MessageInitShape<typeof SubmitJobRequestSchema> {
  return { type, input: { case: "payload", value: payload }, requestId: randomUUID() };
}

function say(step: string, fields: JsonObject): void {
  console.log(JSON.stringify({ step, ...fields }));
}

const [target] = process.argv.slice(2);
if (!target) throw new Error("usage: example HOST:PORT");
const baseUrl = `http://${target}`;
const sessionManager = new Http2SessionManager(baseUrl);
const jobs = createClient(JobService, createGrpcTransport({ baseUrl, sessionManager, interceptors: [retries] }));
await success(jobs);
await cancel(jobs);
await refusals(jobs);
sessionManager.abort();
