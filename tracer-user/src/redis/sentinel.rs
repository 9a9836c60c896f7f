//! Sentinel says where the master is now.

use redis::cmd;

use super::connection::{Connection, ConnectionError};
use super::endpoint::{Address, Endpoint, Sentinels};

/// Asks each sentinel in turn; the first that knows the master is believed.
pub(super) async fn master(
    sentinels: &Sentinels,
    endpoint: &Endpoint,
) -> Result<Address, ConnectionError> {
    let mut causes = Vec::new();
    for address in &sentinels.addresses {
        match ask(address, sentinels, endpoint).await {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => causes.push(format!("{address} does not know it")),
            Err(error) => causes.push(error.to_string()),
        }
    }
    Err(ConnectionError::Sentinel {
        master: sentinels.master.clone(),
        cause: causes.join("; "),
    })
}

async fn ask(
    address: &Address,
    sentinels: &Sentinels,
    endpoint: &Endpoint,
) -> Result<Option<Address>, ConnectionError> {
    let opening = Connection::open_at(
        address,
        endpoint.tls.as_ref(),
        &sentinels.login,
        0,
        endpoint.timeout,
    );
    let mut connection = opening.await?;
    let mut question = cmd("SENTINEL");
    question
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(&sentinels.master);
    let answer: Option<(String, u16)> = connection.query(&question).await?;
    Ok(answer.map(|(host, port)| Address::Tcp { host, port }))
}
