"""Leaks connections through main -> handle_order -> get_client -> redis-py's asyncio."""
import asyncio
import sys
import redis.asyncio

kept = []


async def get_client(host, port):
    client = redis.asyncio.Redis(host=host, port=port)
    await client.ping()
    return client


async def handle_order(host, port):
    client = await get_client(host, port)
    kept.append(client)


async def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        await handle_order(host, port)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
