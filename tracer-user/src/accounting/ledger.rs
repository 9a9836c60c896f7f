//! The ledger: every outstanding socket under the process that answers for it.

use std::collections::BTreeMap;

use crate::{
    decode::socket::{End, TcpState},
    process::{ProcessKey, Processes},
    sockets::{Entry, SocketTable},
};

/// Who answers for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Process(ProcessKey),
    /// Neither an opener nor a holder is known. Never guessed.
    Unattributed,
}

/// The sockets of one owner.
#[derive(Debug, Default)]
pub struct Account<'a> {
    pub client_ends: Vec<&'a Entry>,
    pub server_ends: Vec<&'a Entry>,
}

/// The counts that the policy and the old command look at, over all owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sockets in ESTABLISHED with the watched port at either end: what netstat counted.
    pub established_both_ends: u64,
    pub established_client_ends: u64,
    pub close_wait: u64,
    pub unattributed: u64,
}

#[derive(Debug, Default)]
pub struct Ledger<'a> {
    pub accounts: BTreeMap<Owner, Account<'a>>,
    pub counts: Counts,
}

impl<'a> Ledger<'a> {
    /// The counts are those of `netns`, connleak's own, as the old command's were; the accounts
    /// hold the sockets of all namespaces.
    pub fn of(table: &'a SocketTable, processes: &Processes, netns: Option<u32>) -> Self {
        let mut ledger = Self::default();
        let own: Vec<_> = table
            .iter()
            .filter(|entry| entry.is_own())
            .map(|entry| (entry.remote(), entry.local()))
            .collect();
        for entry in table.iter() {
            // connleak's own connections, and Redis's end of them.
            if entry.is_own() || own.contains(&(entry.local(), entry.remote())) {
                continue;
            }
            let owner = owner(entry, table, processes);
            if netns.is_none_or(|netns| netns == entry.netns()) {
                ledger.counts.add(entry, owner);
            }
            let account = ledger.accounts.entry(owner).or_default();
            match entry.end() {
                End::Client => account.client_ends.push(entry),
                End::Server => account.server_ends.push(entry),
            }
        }
        ledger
    }
}

impl Counts {
    fn add(&mut self, entry: &Entry, owner: Owner) {
        match entry.state() {
            TcpState::Established => {
                self.established_both_ends += 1;
                if entry.end() == End::Client {
                    self.established_client_ends += 1;
                }
            }
            TcpState::CloseWait => self.close_wait += 1,
            _ => {}
        }
        if owner == Owner::Unattributed && entry.end() == End::Client {
            self.unattributed += 1;
        }
    }
}

/// The opener, for as long as it lives; then whoever holds the socket; and for a server end that
/// no accept hook saw, whoever listens there.
pub fn owner(entry: &Entry, table: &SocketTable, processes: &Processes) -> Owner {
    let holder = entry
        .holders()
        .iter()
        .map(|holder| holder.process())
        // The oldest: it had the socket before it forked.
        .min_by_key(|process| (process.start_time_ns, process.pid));
    let opener = entry.opener().map(|opener| opener.process);
    if let Some(opener) = opener {
        let ended = processes.get(opener).is_some_and(|process| process.ended);
        return Owner::Process(match holder {
            Some(holder) if ended => holder,
            _ => opener,
        });
    }
    if let Some(holder) = holder {
        return Owner::Process(holder);
    }
    if entry.end() == End::Server
        && let Some(listener) = table.listener_of(entry)
    {
        return Owner::Process(listener.process);
    }
    Owner::Unattributed
}
