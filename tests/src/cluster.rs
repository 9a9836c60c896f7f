//! A Redis Cluster of three nodes on loopback, without replicas.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::server::{free_port, ping};
use crate::{child, wait};

pub struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Cluster {
    pub fn start() -> Result<Self> {
        let nodes = (0..3).map(|_| Node::start()).collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(cluster.addresses().map(|address| address.to_string()));
        let output = create.arg("--cluster-yes").output()?;
        ensure!(output.status.success(), "{output:?}");
        for address in cluster.addresses() {
            wait::until("every node knows all slots", || {
                let output = Command::new("redis-cli")
                    .args(["-p", &address.port().to_string(), "cluster", "info"])
                    .output()
                    .ok()?;
                String::from_utf8_lossy(&output.stdout)
                    .contains("cluster_state:ok")
                    .then_some(())
            })?;
        }
        Ok(cluster)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let nodes = self.nodes.iter();
        nodes.map(|node| SocketAddr::from(([127, 0, 0, 1], node.port)))
    }
}

impl Node {
    fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("connleak-cluster-")?;
        let (port, bus) = (free_port()?, free_port()?);
        let child = child::bound(&mut Command::new("redis-server"))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args([
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus.to_string(),
            ])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
                "--dir",
            ])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start redis-server; run `cargo xtask setup`")?;
        let node = Self {
            child,
            port,
            _dir: dir,
        };
        wait::until("the node answers PING", || ping(port).then_some(()))?;
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
