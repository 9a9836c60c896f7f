//! Servers, clients and ground truth that the tests share.
//!
//! The test binaries also run inside virtual machines: nothing here needs cargo at run time, and
//! every path has an environment variable.
//!
//! | variable | meaning | where it is unset |
//! |---|---|---|
//! | `CONNLEAK_BIN` | the program under test | `target/release/connleak` |
//! | `CONNLEAK_CLIENTS` | folder of compiled clients, scripts and this package's programs | built on demand |
//! | `CONNLEAK_PYTHON` | a Python that has redis-py | `~/.cache/connleak/venv/bin/python` |
//! | `CONNLEAK_PYTHONS` | folder of the other Pythons | `~/.cache/connleak/pythons` |
//! | `CONNLEAK_NODE_MODULES` | Node's Redis clients | `~/.cache/connleak/node/node_modules` |
//! | `CONNLEAK_PROBES` | probe family to force | `auto` |
//! | `CONNLEAK_SKIPS` | file that collects `test: reason` of skipped tests | none |
//! | `CONNLEAK_SLOW` | factor on deadlines, for emulated machines | 1 |
//! | `CONNLEAK_WRITE_TABLE` | write the README's table of languages, do not compare it | compare |
//! | `CONNLEAK_HOSTILE_SECONDS` | length of the hostile load | 60, emulated 5 |

pub mod actor;
pub mod address;
pub mod browser;
pub mod chains;
pub mod child;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod daemon;
pub mod datagram;
pub mod dial;
pub mod difference;
pub mod gate;
pub mod guest;
pub mod http;
pub mod java;
pub mod kernel_ids;
pub mod languages;
pub mod model;
pub mod netns;
pub mod node;
pub mod peer;
pub mod place;
pub mod prometheus;
pub mod pty;
pub mod python;
pub mod report;
pub mod ruby;
pub mod scene;
pub mod script;
pub mod server;
pub mod share;
pub mod tmux;
pub mod tool;
pub mod tracer;
pub mod truth;
pub mod unit;
pub mod uring;
pub mod wait;
