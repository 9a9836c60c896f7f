//! The rooms of tracer-user and the arrows between them: data flows down this table.

/// A room may import from these rooms, from itself and from [`GIVEN`], from no other.
pub(super) const ROOMS: [(&str, Sees); 22] = [
    // Given: values that everything may know.
    ("config", Sees::Only(&[])),
    ("clock", Sees::Only(&[])),
    ("host", Sees::Only(&[])),
    ("memory", Sees::Only(&[])),
    ("procfs", Sees::Only(&[])),
    // Side rooms: what a process and a stack are, before any event names one.
    ("process", Sees::Only(&[])),
    ("stacks", Sees::Only(&["process"])),
    // The stages, in the order data flows.
    ("kernel", Sees::Only(&[])),
    ("decode", Sees::Only(&["kernel", "process", "stacks"])),
    (
        "sockets",
        Sees::Only(&["kernel", "decode", "process", "stacks"]),
    ),
    (
        "accounting",
        Sees::Only(&["decode", "sockets", "process", "stacks"]),
    ),
    // Its rules are made from the configuration's values: no clock, no file, no process.
    ("policy", Sees::Only(&["config"])),
    ("redis", Sees::Only(&["policy"])),
    (
        "action",
        Sees::Only(&["sockets", "process", "accounting", "policy", "redis"]),
    ),
    // What other machines are told.
    (
        "metrics",
        Sees::Only(&["process", "stacks", "accounting", "policy", "report"]),
    ),
    // What is told about them.
    (
        "report",
        Sees::Only(&[
            "kernel",
            "decode",
            "sockets",
            "process",
            "stacks",
            "accounting",
            "policy",
            "redis",
        ]),
    ),
    (
        "history",
        Sees::Only(&["stacks", "accounting", "policy", "report"]),
    ),
    (
        "export",
        Sees::Only(&["stacks", "accounting", "policy", "report", "history"]),
    ),
    // A report on a screen, and the keys that move it.
    ("top", Sees::Only(&["stacks", "policy", "report"])),
    // What puts them together.
    ("pipeline", Sees::All),
    ("daemon", Sees::All),
    ("cli", Sees::All),
];

/// Rooms every room may see, except the pure ones: those take what they need as arguments.
pub(super) const GIVEN: [&str; 5] = ["config", "clock", "host", "memory", "procfs"];

/// Crates that only these rooms may name.
pub(super) const CRATES: [(&str, &[&str]); 4] = [
    ("aya", &["kernel"]),
    ("aya_log", &["kernel"]),
    ("aya_obj", &["kernel"]),
    ("tracer_ebpf", &["kernel", "decode"]),
];

/// Rooms that are pure: the crates they may name, and what of std they may not.
pub(super) const PURE: [(&str, &[&str]); 1] = [("policy", &["std", "core", "alloc", "serde"])];
pub(super) const IMPURE_STD: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];

/// What a room may import.
pub(super) enum Sees {
    All,
    Only(&'static [&'static str]),
}
