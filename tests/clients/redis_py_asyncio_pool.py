"""The asyncio twin of redis_py_pool.py."""
import asyncio
import sys
import redis.asyncio


async def lease(host, port):
    connection = redis.asyncio.Connection(host=host, port=port)
    await connection.connect()
    return connection


async def main():
    host, port, opened, closed = sys.argv[1], *map(int, sys.argv[2:5])
    leased = [await lease(host, port) for _ in range(opened)]
    for connection in leased[:closed]:
        await connection.disconnect()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
