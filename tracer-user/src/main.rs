//! The `connleak` command.

fn main() {}
