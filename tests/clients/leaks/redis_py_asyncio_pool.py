"""Leaks connections through main -> handle_order -> get_client -> a pool of redis-py's asyncio, which
aioredis became."""
import asyncio
import sys
import redis.asyncio

kept = []


async def get_client(pool):
    connection = await pool.get_connection()
    return connection


async def handle_order(pool):
    connection = await get_client(pool)
    kept.append(connection)


async def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    pool = redis.asyncio.BlockingConnectionPool(host=host, port=port, max_connections=orders)
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        await handle_order(pool)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
