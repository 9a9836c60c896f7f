//! Network namespaces other than connleak's own, found through the processes that hold sockets in
//! them.

use std::{collections::HashMap, path::PathBuf};

use super::state::State;
use crate::process::netns_of_link;

/// Namespaces that have watched sockets, each with a link in /proc to enter it by. A namespace in
/// which no holder lives is left out: there is no way in.
pub(super) fn foreign(state: &State) -> HashMap<u32, PathBuf> {
    let mut found = HashMap::new();
    for entry in state.table.iter() {
        let netns = entry.socket.netns;
        if Some(netns) == state.own_netns || found.contains_key(&netns) {
            continue;
        }
        let opener = entry.socket.opener.as_ref().map(|opener| opener.process);
        let holders = entry.holders.iter().map(|holder| holder.process);
        let link = holders
            .chain(opener)
            .map(|process| PathBuf::from(format!("/proc/{}/ns/net", process.pid)))
            // It may have been opened there by a process that moved on (setns).
            .find(|link| netns_of_link(link) == Some(netns));
        found.extend(link.map(|link| (netns, link)));
    }
    found
}
