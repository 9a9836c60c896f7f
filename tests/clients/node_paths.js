// Connects by twenty call paths at once, each `count` times, while the event loop is kept busy.
//
// arguments: host port way count. Says `up`, waits for a line, connects, and says `ready`. Path N is
// the function pathN; odd ones use ioredis, even ones node-redis, every fourth through a callback.
const { Redis } = require("ioredis");
const { createClient } = require("redis");

const PATHS = 20;
const [host, port, way, count] = process.argv.slice(2);
const kept = [];

async function withIoredis() {
  const client = new Redis({ host, port: Number(port) });
  kept.push(client);
  await client.ping();
}

async function withNodeRedis() {
  const client = createClient({ socket: { host, port: Number(port) } });
  kept.push(client);
  await client.connect();
}

// In a stack of its own: nothing awaits what a callback does.
function later(connect) {
  return new Promise((done) => setTimeout(() => connect().then(done), 1));
}

function path(index) {
  const connect = index % 2 === 1 ? withIoredis : withNodeRedis;
  const called = { [`path${index}`]: async () => {
    await null;
    const pending = connect();
    await pending;
  } };
  const run = called[`path${index}`];
  return index % 4 === 3 ? () => later(run) : run;
}

// What an application may do to the objects that a stack is taken with.
function hinder() {
  const value = () => {
    throw new Error("not yours");
  };
  Object.defineProperty(Error, "prepareStackTrace", { value, writable: false });
}

async function main() {
  console.log("up");
  await new Promise((go) => process.stdin.once("data", go));
  if (way === "hindered") hinder();
  const noise = setInterval(() => {
    for (let sum = 0; sum < 1e5; sum++);
  }, 1);
  const paths = Array.from({ length: PATHS }, (_, index) => path(index));
  for (let round = 0; round < Number(count); round++) {
    await Promise.all(paths.map((run) => run()));
    // The preload tells of 200 in a second.
    await new Promise((done) => setTimeout(done, 120));
  }
  clearInterval(noise);
  console.log("ready");
  process.stdin.on("end", () => process.exit(0)).resume();
}

main();
