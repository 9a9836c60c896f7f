//! Redis' own list of its clients, joined to a report's sockets by address and port.

use super::model::{ClientReport, Report};
use crate::redis::clients::{Client, ClientList};

impl Report {
    /// Says at each socket what Redis says of it; what Redis does not list stays null.
    pub fn join(&mut self, clients: &ClientList) {
        let sockets = self.openers.iter_mut().flat_map(|it| &mut it.sockets);
        for socket in sockets {
            socket.redis = clients
                .find(socket.local, socket.remote)
                .map(|client| Box::new(client.into()));
        }
    }
}

impl From<&Client> for ClientReport {
    fn from(client: &Client) -> Self {
        Self {
            id: client.id,
            name: client.name.clone(),
            library: client.library.clone(),
            user: client.user.clone(),
            last_command: client.command.clone(),
            age_s: client.age_s,
            idle_s: client.idle_s,
        }
    }
}
