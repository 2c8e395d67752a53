// The life of a worker: a session over as many streams of `Work` as it takes. docs/workers.md tells the rules.

import { setTimeout as pause } from "node:timers/promises";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type Client } from "@connectrpc/connect";

import {
  JobAnswer_Status,
  JobReportSchema,
  JobStop_Reason,
  JobUpdateSchema,
  WorkRequestSchema,
  type Assignment,
  type JobAnswer,
  type JobReport,
  type WorkRequest,
  type WorkResponse,
  type WorkerService,
} from "../gen/atlas/v1/worker_service_pb.js";

/** Between two tries to connect: a fraction of any lease, or a cut would cost jobs. */
const PAUSE = 200;
/** What a server has for its welcome. */
const WELCOME_TIME = 2_000;
const GOODBYE_TIME = 5_000;

type Message = MessageInitShape<typeof WorkRequestSchema>["message"];
type Outcome = MessageInitShape<typeof JobReportSchema>["outcome"];
export type Update = Pick<MessageInitShape<typeof JobUpdateSchema>, "progress" | "logs">;

/** What a handler throws to say more than a message. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly reason = "",
    readonly final = false,
  ) {
    super(message);
  }
}

/** Executes a job; what it returns becomes JSON. When `signal` is aborted, it throws the signal's reason, and soon. */
export type Handler = (job: Job, signal: AbortSignal) => Promise<unknown>;

export class Job {
  readonly #tell: (job: Job, update: Update) => void;
  /** Aborted with the name of the outcome that it leads to, or with "lost". */
  readonly stop = new AbortController();

  constructor(
    readonly assignment: Assignment,
    tell: (job: Job, update: Update) => void,
  ) {
    this.#tell = tell;
  }

  get payload(): any {
    return JSON.parse(this.assignment.input.value as string);
  }

  /** Hands in progress and log lines. */
  tell(update: Update): void {
    this.#tell(this, update);
  }
}

export class Worker {
  #session = "";
  #lease = 30_000;
  /** When the last message was sent that was answered. */
  #kept = 0;
  #jobs = new Map<string, Job>();
  /** Updates and reports that were not answered; they are sent again on the next stream. */
  #pending = new Map<bigint, WorkRequest>();
  #lastId = 0n;
  #received = 0n;
  #draining = false;
  #ended = false;
  #out?: Outbox;

  constructor(
    private readonly service: Client<typeof WorkerService>,
    private readonly name: string,
    private readonly slots: number,
    private readonly handlers: Record<string, Handler>,
  ) {}

  /** Works until `stop` is aborted. Then jobs have `drain` milliseconds to end, and go back after it. */
  async run(stop: AbortSignal, drain: number): Promise<void> {
    const guard = setInterval(() => this.#guard(), 50);
    stop.addEventListener("abort", () => void this.#drain(drain));
    while (!this.#ended) {
      try {
        await this.#stream();
      } catch (error) {
        if (ConnectError.from(error).code === Code.InvalidArgument) throw error;
        console.error("the stream broke, and is opened again:", String(error));
        if (!this.#ended) await pause(PAUSE);
      }
    }
    clearInterval(guard);
  }

  async #stream(): Promise<void> {
    const out = new Outbox();
    const deaf = new AbortController();
    let timer = setTimeout(() => deaf.abort(), WELCOME_TIME);
    let beats: NodeJS.Timeout | undefined;
    const sent = performance.now();
    out.say(this.#hello());
    try {
      for await (const { message } of this.service.work(out, { signal: deaf.signal })) {
        if (message.case === "welcome") {
          if (!message.value.resumed) this.#loseAll();
          this.#session = message.value.session;
          this.#lease = millis(message.value.leaseDuration!);
          this.#kept = sent;
          this.#received = 0n;
          this.#out = out;
          for (const request of this.#pending.values()) out.push(request);
          this.#ready();
          const beat = () => out.say({ case: "beat", value: BigInt(Math.floor(performance.now())) });
          beats = setInterval(beat, this.#lease / 5);
        } else {
          this.#heard(message);
        }
        clearTimeout(timer);
        timer = setTimeout(() => deaf.abort(), this.#lease / 2); // there should be an answer to a beat by then
      }
      if (!this.#ended) throw new Error("the server ended the stream");
    } finally {
      this.#out = undefined;
      out.end();
      clearTimeout(timer);
      clearInterval(beats);
    }
  }

  #hello(): Message {
    const holding = [...this.#jobs.values()].map(({ assignment: { id, token } }) => ({ id, token }));
    const types = Object.keys(this.handlers).map((name) => ({ name }));
    return {
      case: "hello",
      value: { worker: this.name, session: this.#session, slots: this.slots, types, holding, jsonText: true },
    };
  }

  #heard(message: WorkResponse["message"]): void {
    switch (message.case) {
      case "beat":
        this.#kept = Math.max(this.#kept, Number(message.value));
        break;
      case "assignments":
        this.#received = message.value.batch;
        this.#out?.say({ case: "received", value: this.#received });
        for (const assignment of message.value.jobs) void this.#execute(assignment);
        this.#ready();
        break;
      case "stops":
        for (const { token, reason } of message.value.stops) {
          if (reason === JobStop_Reason.CANCELLED) this.#jobs.get(token)?.stop.abort("cancelled");
          else this.#lose(token);
        }
        break;
      case "updatesAnswer":
      case "reportsAnswer":
        this.#answered(message.value.id, message.value.answers);
    }
  }

  #answered(id: bigint, answers: JobAnswer[]): void {
    const said = this.#pending.get(id)?.message;
    this.#pending.delete(id);
    if (said?.case === "updates") {
      said.value.updates.forEach(({ token }, i) => {
        if (answers[i].status === JobAnswer_Status.LOST) this.#lose(token);
      });
    } else if (said?.case === "reports") {
      said.value.reports.forEach((report, i) => this.#reported(report, answers[i]));
    }
  }

  #reported({ token }: JobReport, { status, error }: JobAnswer): void {
    const job = this.#jobs.get(token);
    if (job && status === JobAnswer_Status.REFUSED) {
      const failure = { reason: "RESULT_REFUSED", message: error?.message, final: true };
      this.#report(job, { case: "failure", value: failure });
    } else {
      this.#jobs.delete(token);
      this.#ready();
    }
  }

  async #execute(assignment: Assignment): Promise<void> {
    const job = new Job(assignment, (job, update) => this.#tell(job, update));
    this.#jobs.set(assignment.token, job);
    if (this.#draining) return this.#report(job, { case: "release", value: {} });
    const left = assignment.timeLeft && setTimeout(() => job.stop.abort("timedOut"), millis(assignment.timeLeft));
    let outcome: Outcome;
    try {
      const result = await this.handlers[assignment.type](job, job.stop.signal);
      outcome = { case: "success", value: { output: { case: "resultJson", value: JSON.stringify(result ?? null) } } };
    } catch (error) {
      outcome = job.stop.signal.aborted ? { case: job.stop.signal.reason, value: {} } : failed(error);
    }
    clearTimeout(left);
    if (this.#jobs.get(assignment.token) === job) this.#report(job, outcome); // else it was lost
  }

  #tell({ assignment: { id, token } }: Job, update: Update): void {
    this.#ask({ case: "updates", value: { id: ++this.#lastId, updates: [{ id, token, ...update }] } });
  }

  #report({ assignment: { id, token } }: Job, outcome: Outcome): void {
    this.#ask({ case: "reports", value: { id: ++this.#lastId, reports: [{ id, token, outcome }] } });
  }

  /** Says what is to be answered, again on the next stream if need be. Its number is `#lastId`. */
  #ask(message: Message): void {
    const request = create(WorkRequestSchema, { message });
    this.#pending.set(this.#lastId, request);
    this.#out?.push(request);
  }

  #ready(): void {
    const limit = this.#draining ? 0 : Math.max(0, this.slots - this.#jobs.size);
    const room = Object.keys(this.handlers).map((type) => ({ type, slots: limit }));
    this.#out?.say({ case: "ready", value: { limit, room, received: this.#received } });
  }

  /** Stops all jobs before the lease ends, if it could not be kept: others are about to get them. */
  #guard(): void {
    if (performance.now() > this.#kept + this.#lease * 0.9) this.#loseAll();
  }

  #loseAll(): void {
    for (const token of this.#jobs.keys()) this.#lose(token);
    this.#pending.clear();
  }

  /** Stops a job, about which no more is said. */
  #lose(token: string): void {
    const job = this.#jobs.get(token);
    if (!job) return;
    this.#jobs.delete(token);
    job.stop.abort("lost");
    this.#ready();
  }

  async #drain(time: number): Promise<void> {
    this.#draining = true;
    this.#ready();
    await this.#empty(time);
    for (const job of this.#jobs.values()) job.stop.abort("release");
    await this.#empty(GOODBYE_TIME);
    this.#ended = true;
    this.#out?.say({ case: "goodbye", value: {} });
    this.#out?.end();
  }

  /** Waits up to so long until no job is in hand. */
  async #empty(time: number): Promise<void> {
    for (const end = performance.now() + time; this.#jobs.size && performance.now() < end; ) await pause(10);
  }
}

/** What is to be written to a stream, in order. */
class Outbox implements AsyncIterable<WorkRequest> {
  #queue: WorkRequest[] = [];
  #ended = false;
  #wake?: () => void;

  say(message: Message): void {
    this.push(create(WorkRequestSchema, { message }));
  }

  push(request: WorkRequest): void {
    this.#queue.push(request);
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WorkRequest> {
    for (;;) {
      while (this.#queue.length) yield this.#queue.shift()!;
      if (this.#ended) return;
      await new Promise<void>((wake) => (this.#wake = wake));
    }
  }
}

function failed(error: unknown): Outcome {
  const { reason = "", final = false } = error instanceof Failure ? error : {};
  return { case: "failure", value: { reason, final, message: error instanceof Error ? error.message : String(error) } };
}

function millis({ seconds, nanos }: { seconds: bigint; nanos: number }): number {
  return Number(seconds) * 1_000 + nanos / 1e6;
}
