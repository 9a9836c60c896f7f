"""Opens connections by one of the ways that a Python program has, and logs its own stack at each.

arguments: host port way count. Says `up`, waits for a line, connects; then a line `pid N`, one
`function:line function:line ...` for each connection, innermost first, and `ready`. With redis-py
the innermost function is the one that called it.
"""
import asyncio
import os
import socket
import sys
import threading
import time
import traceback

kept = []
log = []


def logged(frames):
    chain = ["%s:%d" % (frame.name, frame.lineno) for frame in reversed(frames)]
    log.append(" ".join(chain))


class Pool:
    def __init__(self, address):
        self.address = address

    def get_client(self):
        connection = socket.socket()
        connection.connect(self.address); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)

    async def get_client_async(self):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self.address); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)
        await asyncio.sleep(0)


def handle_order(pool):
    pool.get_client()


def deep(address, count, frames):
    """Connects with so many frames of its own on the stack, without looking at them, and does not
    wait for an answer."""
    if frames:
        return deep(address, count, frames - 1)
    for _ in range(count):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(address)
        kept.append(connection)


def nested(pool, depth):
    if depth:
        # Through C code: sorted calls back.
        sorted([1, 2], key=lambda _: nested(pool, depth - 1) or _ if _ == 2 else 0)
    else:
        handle_order(pool)


async def handle_order_async(pool, depth):
    if depth:
        await handle_order_async(pool, depth - 1)
    else:
        await pool.get_client_async()


async def busy(until):
    while not until.is_set():
        sum(i * i for i in range(200))
        await asyncio.sleep(0)


async def main_async(pool, count):
    done = asyncio.Event()
    noise = [asyncio.ensure_future(busy(done)) for _ in range(8)]
    orders = [handle_order_async(pool, index % 7) for index in range(count)]
    await asyncio.gather(*orders[::2])
    for order in orders[1::2]:
        await order
    done.set()
    await asyncio.gather(*noise)


def redis_py(host, port, count):
    import redis

    def get_client():
        connection = redis.Connection(host=host, port=port)
        connection.connect(); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)

    def handle_order():
        get_client()

    for _ in range(count):
        handle_order()


async def redis_py_asyncio(host, port, count):
    import redis.asyncio

    async def get_client():
        connection = redis.asyncio.Connection(host=host, port=port)
        await connection.connect(); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)

    async def handle_order():
        await get_client()

    for _ in range(count):
        await handle_order()


async def redis_py_pool(host, port, count):
    import redis.asyncio

    pool = redis.asyncio.ConnectionPool(host=host, port=port)

    async def get_client():
        connection = await pool.get_connection("PING"); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)

    async def handle_order():
        await get_client()

    for _ in range(count):
        await handle_order()


def redis_py_gevent(host, port, count):
    """Each order in a greenlet of its own: connect runs on a C stack that was switched to."""
    from gevent import monkey

    monkey.patch_all()
    import gevent
    import redis

    def get_client():
        connection = redis.Connection(host=host, port=port)
        connection.connect(); frames = traceback.extract_stack()
        kept.append(connection)
        logged(frames)

    def handle_order():
        gevent.sleep(0)
        get_client()

    gevent.joinall([gevent.spawn(handle_order) for _ in range(count)])


async def redis_py_uvloop(host, port, count):
    await redis_py_asyncio(host, port, count)
    # uvloop closes its transports when the loop ends.
    hold()


def hold():
    print("pid %d" % os.getpid(), *log, "ready", sep="\n", flush=True)
    sys.stdin.read()
    # Connections that are closed when the interpreter ends complain about their event loop.
    os._exit(0)


def main():
    host, port, way, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    print("up", flush=True)
    sys.stdin.readline()
    pool = Pool((host, port))
    if way == "sync":
        for index in range(count):
            handle_order(pool)
            nested(pool, index % 3)
    elif way == "threads":
        threads = [threading.Thread(target=handle_order, args=(pool,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif way == "asyncio":
        asyncio.run(main_async(pool, count))
    elif way == "redis":
        redis_py(host, port, count)
    elif way == "redis-asyncio":
        asyncio.run(redis_py_asyncio(host, port, count))
    elif way == "redis-pool":
        asyncio.run(redis_py_pool(host, port, count))
    elif way == "redis-gevent":
        redis_py_gevent(host, port, count)
    elif way == "redis-uvloop":
        import uvloop

        uvloop.install()
        asyncio.run(redis_py_uvloop(host, port, count))
    elif way == "deep":
        # main and the module stand below.
        deep((host, port), count, 29)
    elif way == "late":
        time.sleep(1)
        for _ in range(count):
            handle_order(pool)
    elif way == "fork":
        child = os.fork()
        if child:
            os._exit(os.waitpid(child, 0)[1])
        for _ in range(count):
            handle_order(pool)
    hold()


main()
