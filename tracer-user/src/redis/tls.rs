//! TLS to Redis: whose authority is believed, and the certificate we show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::endpoint::TlsFiles;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to read certificate {}: {cause}", file.display())]
    File { file: PathBuf, cause: String },
    #[error("failed to find the system's certificate authorities; give ca_file")]
    NoAuthority,
    #[error("failed to set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthority);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let shown = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error))?;
            builder.with_client_auth_cert(certificates(cert)?, shown)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| failed(file, error))
}

fn failed(file: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        cause: error.to_string(),
    }
}
