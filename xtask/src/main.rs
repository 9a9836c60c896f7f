//! Everything that is done to connleak, one file a verb.

fn main() {}
