// Leaks connections through main -> handleOrder -> getClient -> node-redis.
const { createClient } = require("redis");

const kept = [];

async function getClient(host, port) {
  const client = createClient({ socket: { host, port } });
  await client.connect();
  return client;
}

async function handleOrder(host, port) {
  const client = await getClient(host, port);
  kept.push(client);
}

async function main() {
  const [host, port, orders] = process.argv.slice(2);
  console.log("up");
  await new Promise((go) => process.stdin.once("data", go));
  for (let order = 0; order < Number(orders); order++) {
    await handleOrder(host, Number(port));
  }
  console.log("ready");
  process.stdin.on("end", () => process.exit(0)).resume();
}

main();
