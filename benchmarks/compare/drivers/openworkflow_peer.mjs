// OpenWorkflow for TypeScript. Speaks as protocol.py says; it is run in its folder of packages.
import { createInterface } from "node:readline";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = join(process.cwd(), "node_modules", "openworkflow", "dist");
const load = (file) => import(pathToFileURL(join(packages, file)).href);
const { OpenWorkflow } = await load("index.js");
const { BackendPostgres } = await load("postgres.js");

const STEPS = { "one-step": 1, "three-steps": 3, "nine-steps": 9, "ten-steps": 10 };
const CONCURRENCY = 100;
const CALLERS = 100;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (said, more = {}) =>
  new Promise((done) => process.stdout.write(`@${JSON.stringify({ said, ...more })}\n`, done));
const toldToBegin = async () => {
  await say("ready");
  await lines.next();
};
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const milliseconds = () => performance.now();

const tally = { steps: 0, runs: 0, expected: 0, cpu: cpuSeconds() };
const countStep = () => {
  tally.steps += 1;
  if (tally.steps === 1) {
    tally.cpu = cpuSeconds();
    say("first", { at: (performance.timeOrigin + performance.now()) / 1000 });
  }
};
const countRun = () => {
  tally.runs += 1;
  if (tally.runs === tally.expected) say("called");
};

const define = (client, name) =>
  client.defineWorkflow({ name }, async ({ input, step }) => {
    let result = 0;
    for (let number = 0; number < STEPS[name]; number += 1) {
      result = await step.run({ name: `step-${number}` }, async () => {
        countStep();
        return input;
      });
    }
    countRun();
    return result;
  });

const enqueue = async (client, name, form, count) => {
  const workflow = define(client, name);
  await toldToBegin();
  const started = milliseconds();
  const cpu = cpuSeconds();
  const callers = form === "single" ? 1 : CALLERS;
  const oneCaller = async (number) => {
    for (let made = number; made < count; made += callers) await workflow.run(1);
  };
  await Promise.all(Array.from({ length: callers }, (_, number) => oneCaller(number)));
  const seconds = (milliseconds() - started) / 1000;
  await say("spent", { seconds, cpu_seconds: cpuSeconds() - cpu });
};

const work = async (client, runs) => {
  tally.expected = runs;
  for (const name of Object.keys(STEPS)) define(client, name);
  const worker = client.newWorker({ concurrency: CONCURRENCY });
  await worker.start();
  await toldToBegin();
  const spent = cpuSeconds() - tally.cpu;
  await worker.stop();
  await say("spent", { cpu_seconds: spent, steps: tally.steps, runs: tally.runs });
};

const call = async (client, name, callers, samples, seconds) => {
  const workflow = define(client, name);
  const warmUp = Math.min(20 * callers, Math.floor(samples / 2));
  const taken = [];
  await toldToBegin();
  const started = milliseconds();
  const oneCaller = async () => {
    while (taken.length < warmUp + samples && milliseconds() < started + seconds * 1000) {
      if (callers === 1) await new Promise((done) => setTimeout(done, 20));
      const begun = milliseconds();
      await (await workflow.run(1)).result();
      taken.push(milliseconds() - begun);
    }
  };
  await Promise.all(Array.from({ length: callers }, oneCaller));
  const rate = (taken.length * 1000) / (milliseconds() - started);
  const first = taken.length >= warmUp + samples ? warmUp : Math.floor(taken.length / 4);
  await say("spent", { milliseconds: taken.slice(first), rate });
};

const [role, url, ...rest] = process.argv.slice(2);
const backend = await BackendPostgres.connect(url);
const client = new OpenWorkflow({ backend });
if (role === "setup") await say("spent");
else if (role === "enqueue") await enqueue(client, rest[0], rest[1], Number(rest[2]));
else if (role === "work") await work(client, Number(rest[0]));
else await call(client, rest[0], ...rest.slice(1).map(Number));
await backend.stop();
process.exit(0);
