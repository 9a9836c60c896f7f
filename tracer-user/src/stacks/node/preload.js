// connleak's preload for Node 16 and later: node --require FILE, or NODE_OPTIONS="--require FILE".
//
// Node calls connect(2) from its event loop, where the function that wanted the connection is no
// longer on the stack. This file remembers its JavaScript stack until then, and lays it where a
// tracer that copies the machine stack at connect finds it: V8 pushes the arguments of a call onto
// the machine stack, and Node's TCP.connect does not look at more of them than it needs. So nothing
// is written anywhere else, nothing is sent, and what is told belongs to that very connect.
//
// Whatever fails in here leaves the connect as it was. Printed by `connleak node-preload`.
"use strict";

const { AsyncLocalStorage } = require("async_hooks");
const Module = require("module");
const net = require("net");

const PORTS = new Set([6379]);
// Of these the application's call is kept: they connect later than they are asked to.
const CLIENTS = /[\\/]node_modules[\\/](ioredis|@redis[\\/]client|redis)[\\/]/;
// Of each stack. Three bytes fit into an argument, of which the machine stack takes eight bytes.
const TEXT_MAX_BYTES = 3072;
const FRAMES_MAX = 48;
const NAME_MAX_CHARS = 200;
const PATH_MAX_CHARS = 400;
const TOLD_MAX_PER_SECOND = 200;

// What follows is read by stacks/node/mod.rs.
const MARK = [0x6c9a01, 0x35f2e8, 0xd04b77, 0x8e1c5d];
const WHOLE = 0;
const CUT = 1;
const TOO_MANY = 2;
const OTHER_PORT = 3;
const NOT_KNOWN = 4;

const context = new AsyncLocalStorage();
const replaced = new WeakSet();

// Takes the stack without reading it, which is what costs. `below` and what it called are left out.
function capture(below) {
  const limit = Error.stackTraceLimit;
  const holder = {};
  Error.stackTraceLimit = FRAMES_MAX;
  try {
    Error.captureStackTrace(holder, below);
  } finally {
    Error.stackTraceLimit = limit;
  }
  return holder;
}

// The frames of a captured stack, innermost first, without Node's own and this file's.
function frames(holder) {
  const prepare = Error.prepareStackTrace;
  Error.prepareStackTrace = (_, sites) => sites;
  let sites;
  try {
    sites = holder.stack;
  } finally {
    Error.prepareStackTrace = prepare;
  }
  if (!Array.isArray(sites)) return [];
  return sites.map(frame).filter(isTold);
}

function frame(site) {
  const url = String(site.getFileName() || site.getScriptNameOrSourceURL() || "");
  return {
    name: plain(functionName(site), NAME_MAX_CHARS),
    file: plain(url.startsWith("file://") ? decodeURIComponent(url.slice(7)) : url, PATH_MAX_CHARS),
    line: site.getLineNumber() || 0,
  };
}

// As a stack that is printed has it: `Pool.get`, `new Client`, `<anonymous>`.
function functionName(site) {
  const name = site.getFunctionName() || "<anonymous>";
  if (site.isConstructor()) return `new ${name}`;
  const type = site.isToplevel() || site.isAsync() ? "" : site.getTypeName() || "";
  const isMethod = type !== "" && type !== "Object" && !name.includes(".");
  return isMethod ? `${type}.${name}` : name;
}

// Fields are parted by tabs and frames by line ends, which nothing within may be.
function plain(text, chars) {
  return text.slice(0, chars).replace(/[\0-\x1f\x7f]/g, " ");
}

// Functions of the language itself have no place.
function isTold({ file, line }) {
  return line !== 0 && file !== __filename && !file.startsWith("node:");
}

function isClient({ file }) {
  return CLIENTS.test(file);
}

// The client's own frames, and from there on those of whoever asked it to connect. A connection
// that the client did not open is not told as the client's, though it may have caused it.
function caller(asked) {
  const here = frames(asked.here);
  if (!asked.client) return here;
  const own = here.filter(isClient);
  return own.length === 0 ? here : own.concat(asked.client);
}

function encoded(stack) {
  const lines = [];
  let bytes = 0;
  let how = stack.length === 0 ? NOT_KNOWN : WHOLE;
  for (const { name, file, line } of stack) {
    const text = Buffer.from(`${name}\t${file}\t${line}\n`);
    bytes += text.length;
    if (bytes > TEXT_MAX_BYTES) {
      how = CUT;
      break;
    }
    lines.push(text);
  }
  return { how, text: Buffer.concat(lines) };
}

// The arguments that tell `text`. Older ones may still lie in memory that the stack once had: those
// with the latest time are this call's.
function told({ how, text }) {
  const [s, ns] = process.hrtime();
  const time = [Math.floor(s / 2 ** 24) & 0xffffff, s & 0xffffff, ns >>> 15, ns & 0x7fff];
  const words = [...MARK, ...time, how, text.length];
  let sum = 0;
  for (let at = 0; at < text.length; at += 3) {
    const word = text[at] | ((text[at + 1] || 0) << 8) | ((text[at + 2] || 0) << 16);
    words.push(word);
    sum = (sum * 31 + word) % 0x1000000;
  }
  words.push(sum);
  return words;
}

let second = 0;
let toldInSecond = 0;

function isTooMany() {
  const now = process.hrtime()[0];
  if (now !== second) {
    second = now;
    toldInSecond = 0;
  }
  toldInSecond += 1;
  return toldInSecond > TOLD_MAX_PER_SECOND;
}

// Every connect tells something: else what an older one told could be taken for its own.
function toldOf(asked, port) {
  const without = (how) => told({ how, text: Buffer.alloc(0) });
  if (!PORTS.has(port)) return without(OTHER_PORT);
  if (!asked) return without(NOT_KNOWN);
  if (isTooMany()) return without(TOO_MANY);
  try {
    return told(encoded(caller(asked)));
  } catch {
    return without(NOT_KNOWN);
  }
}

// Node's own TCP.connect(request, address, port) and connect6, which call connect(2).
function replaceConnect(prototype) {
  if (!prototype || replaced.has(prototype)) return;
  replaced.add(prototype);
  for (const name of ["connect", "connect6"]) {
    const connect = prototype[name];
    if (typeof connect !== "function") continue;
    prototype[name] = function (...args) {
      let more = [];
      try {
        if (args.length === 3) more = toldOf(context.getStore(), args[2]);
      } catch {}
      return Reflect.apply(connect, this, more.length === 0 ? args : args.concat(more));
    };
  }
}

// Every connection, TLS too, begins here. Node makes the TCP object here, and has it connect later.
const socketConnect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function connect(...args) {
  let asked;
  try {
    asked = { here: capture(connect), client: context.getStore()?.client };
  } catch {
    return Reflect.apply(socketConnect, this, args);
  }
  const result = context.run(asked, () => Reflect.apply(socketConnect, this, args));
  try {
    const handle = this._handle?._parent ?? this._handle;
    if (handle?.constructor?.name === "TCP") replaceConnect(Object.getPrototypeOf(handle));
  } catch {}
  return result;
};

// A client's connect(): whoever calls it is remembered. A client that connects by itself, again or
// to another node of a cluster, stays with whom it was asked by first.
function replaceClient(prototype) {
  const connect = Object.getOwnPropertyDescriptor(prototype, "connect");
  if (typeof connect?.value !== "function" || !connect.writable || replaced.has(prototype)) return;
  replaced.add(prototype);
  prototype.connect = function (...args) {
    let client;
    try {
      client = frames(capture(prototype.connect));
      if (client.every(isClient)) client = undefined;
    } catch {}
    const original = () => Reflect.apply(connect.value, this, args);
    return client === undefined ? original() : context.run({ client }, original);
  };
}

const load = Module._load;
Module._load = function (request, parent, ...rest) {
  const exported = Reflect.apply(load, this, [request, parent, ...rest]);
  try {
    if (CLIENTS.test(parent?.filename ?? "") || CLIENTS.test(`/node_modules/${request}/`)) {
      for (const of of [exported, exported?.default, exported?.Redis, exported?.Cluster]) {
        if (typeof of === "function" && of.prototype) replaceClient(of.prototype);
      }
    }
  } catch {}
  return exported;
};
