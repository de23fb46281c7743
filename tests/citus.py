"""Databases on a Citus cluster that is given from outside: each is on all nodes, under one name."""

from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from graphql_api.storage.distribution import SETTINGS

WORKERS = "select nodename, nodeport from pg_dist_node where groupid > 0 and noderole = 'primary' order by nodeid"
END = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
_ATTEMPTS = 20


class Cluster:
    """The nodes by their addresses, the coordinator first, and connections to them."""

    def __init__(self, nodes):
        self._nodes = nodes

    @classmethod
    @asynccontextmanager
    async def of(cls, url):
        async with AsyncExitStack() as stack:

            async def connect(address):
                connection = await asyncpg.connect(address)
                stack.push_async_callback(connection.close)
                return connection

            parts, nodes = urlsplit(url), {url: await connect(url)}
            user, _, _ = parts.netloc.rpartition("@")
            for host, port in await nodes[url].fetch(WORKERS):
                address = parts._replace(netloc=f"{user}@{host}:{port}").geturl()
                nodes[address] = await connect(address)
            yield cls(nodes)

    async def join(self, name):
        """Make a database of the coordinator one of the cluster: the workers get one of this name, too."""
        coordinator, *workers = self._nodes
        for worker in workers:
            await self._nodes[worker].execute(f"create database {name} template template0")
        for node in self._nodes:
            connection = await asyncpg.connect(_at(node, name))
            await connection.execute("create extension citus")
            await connection.close()
        connection = await asyncpg.connect(_at(coordinator, name))
        for node in self._nodes:
            place = urlsplit(node)
            function = "citus_set_coordinator_host" if node == coordinator else "citus_add_node"
            await connection.fetch(f"select {function}($1, $2)", place.hostname, place.port)
        await connection.close()

    async def copy(self, template, name):
        """Copy a database of the cluster on all nodes."""
        for connection in self._nodes.values():
            await _copy(connection, template, name)
        coordinator, *_ = self._nodes.values()
        for setting, value in SETTINGS.items():  # they are no part of what is copied
            await coordinator.execute(f"alter database {name} set {setting} = {value}")

    async def drop(self, name):
        for connection in self._nodes.values():
            await connection.execute(f"drop database if exists {name} with (force)")


async def _copy(connection, template, name):
    """Processes of Citus connect to each database again and again, and one that has connections cannot be copied."""
    for attempt in range(_ATTEMPTS):
        await connection.fetch(END, template)
        try:
            await connection.execute(f"create database {name} template {template}")
        except asyncpg.ObjectInUseError:
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return


def _at(url, name):
    return urlsplit(url)._replace(path=f"/{name}").geturl()
