//! A pod: what Kubernetes calls the place of a container, as far as the node itself tells.
//!
//! The UID is in the cgroup. The names are in the file names that the kubelet makes for its logs,
//! `POD_NAMESPACE_CONTAINER-ID.log`; asking the API server would take credentials and rights.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the kubelet links the log of every container.
const LOGS: &str = "/var/log/containers";
/// A node runs some hundred containers; a folder with more entries is not the kubelet's.
const ENTRIES_MAX: usize = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub uid: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// The container's name in the pod.
    pub container_name: Option<String>,
}

/// Where names are looked up.
#[derive(Clone, Debug)]
pub(super) struct Pods {
    logs: PathBuf,
}

impl Default for Pods {
    fn default() -> Self {
        Self::at(LOGS)
    }
}

impl Pods {
    pub(super) fn at(logs: impl Into<PathBuf>) -> Self {
        Self { logs: logs.into() }
    }

    /// The pod with this UID, named if the kubelet has a log of this container.
    pub(super) fn pod(&self, uid: String, container: Option<&str>) -> Pod {
        let Some((name, namespace, container)) = container.and_then(|id| names(&self.logs, id))
        else {
            return Pod {
                uid,
                ..Pod::default()
            };
        };
        Pod {
            uid,
            namespace: Some(namespace),
            name: Some(name),
            container_name: Some(container),
        }
    }
}

/// (pod, namespace, container).
type Names = (String, String, String);

fn names(logs: &Path, id: &str) -> Option<Names> {
    let entries = fs::read_dir(logs).ok()?.take(ENTRIES_MAX);
    let ending = format!("-{id}.log");
    entries.flatten().find_map(|entry| {
        let file = entry.file_name().into_string().ok()?;
        let stem = file.strip_suffix(&ending)?;
        // Names of pods, namespaces and containers are DNS labels: none has an underscore.
        let mut parts = stem.split('_').map(str::to_owned);
        let names = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(names)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f0c6b0d2a4e8f1c3b7d9e0a1f2c4b6d8e0f1a3c5b7d9f0e2a4c6b8d0f1e3a5c";
    const UID: &str = "8ca306fa-3c03-47fa-97dd-19979c345572";

    #[test]
    fn names_are_those_of_the_kubelets_log() {
        let logs = tempfile::tempdir().expect("temp directory");
        let file = format!("orders-7d9f4c-x2x8z_shop_worker-{ID}.log");
        fs::write(logs.path().join(file), "").expect("written");
        fs::write(logs.path().join("other_shop_worker-00.log"), "").expect("written");
        let pod = Pods::at(logs.path()).pod(UID.to_owned(), Some(ID));
        assert_eq!(pod.uid, UID);
        assert_eq!(pod.name.as_deref(), Some("orders-7d9f4c-x2x8z"));
        assert_eq!(pod.namespace.as_deref(), Some("shop"));
        assert_eq!(pod.container_name.as_deref(), Some("worker"));
    }

    #[test]
    fn what_the_node_does_not_tell_is_not_known() {
        let pod = Pods::at("/nonexistent").pod(UID.to_owned(), Some(ID));
        assert_eq!((pod.name, pod.namespace), (None, None));
    }
}
