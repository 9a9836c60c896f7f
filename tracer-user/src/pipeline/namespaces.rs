//! Network namespaces other than connleak's own, found through the processes that hold sockets in
//! them.

use std::{collections::HashMap, fs::File, os::unix::fs::MetadataExt};

use super::state::State;

/// Namespaces that have watched sockets, opened to be entered. A namespace in which no holder
/// lives is left out: there is no way in.
pub(super) fn foreign(state: &State) -> HashMap<u32, File> {
    let mut found = HashMap::new();
    for entry in state.table.iter() {
        let netns = entry.netns();
        if Some(netns) == state.own_netns || found.contains_key(&netns) {
            continue;
        }
        let opener = entry.opener().map(|opener| opener.process);
        let holders = entry.holders().iter().map(|holder| holder.process());
        let namespace = holders
            .chain(opener)
            .filter_map(|process| File::open(format!("/proc/{}/ns/net", process.pid)).ok())
            // Its socket may be from before it moved on (setns), or its PID another's by now.
            .find(|namespace| inode(namespace) == Some(u64::from(netns)));
        found.extend(namespace.map(|namespace| (netns, namespace)));
    }
    found
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.ino())
}
