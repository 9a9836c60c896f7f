//! The host: what a report says of the machine it was made on.

use std::{collections::HashMap, fs, sync::OnceLock};

/// Facts of this machine that do not change while it runs.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    /// `uname -r`
    pub kernel: String,
    pub boot_id: String,
    users: OnceLock<HashMap<u32, String>>,
}

impl Host {
    pub fn here() -> Self {
        let line = |path| {
            fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            name: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            users: OnceLock::new(),
        }
    }

    /// A host that a recording names; its users are told by [`Host::add_user`].
    pub fn recorded(name: String, kernel: String, boot_id: String) -> Self {
        Self {
            name,
            kernel,
            boot_id,
            users: OnceLock::from(HashMap::new()),
        }
    }

    pub fn add_user(&mut self, uid: u32, name: String) {
        if let Some(users) = self.users.get_mut() {
            users.insert(uid, name);
        }
    }

    /// The user's name on this host, or its number. A container's users have none here.
    pub fn user(&self, uid: u32) -> String {
        self.users
            .get_or_init(|| users(&fs::read_to_string("/etc/passwd").unwrap_or_default()))
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(entry).collect()
}
