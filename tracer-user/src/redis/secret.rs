//! A secret is a password that no log, no Debug and no argument list ever shows.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longer than any password; a wrong path (a log, a device) must not fill the memory.
const MAX_BYTES: u64 = 4096;

/// Where a password is; read anew at every connect, so that a changed one is taken up by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretSource {
    File(PathBuf),
    /// systemd's LoadCredential: a file of that name in $CREDENTIALS_DIRECTORY.
    Credential(String),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("failed to read password file {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("failed to read password file {}: it is empty", file.display())]
    Empty { file: PathBuf },
    #[error(
        "failed to find credential {name}: CREDENTIALS_DIRECTORY is not set; add \
         LoadCredential={name}:PATH to the unit"
    )]
    NoCredentials { name: String },
}

impl SecretSource {
    pub(super) fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(file) => read(file),
            Self::Credential(name) => match env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => read(&Path::new(&directory).join(name)),
                None => Err(SecretError::NoCredentials { name: name.clone() }),
            },
        }
    }
}

fn read(file: &Path) -> Result<Secret, SecretError> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|source| SecretError::Read {
            file: file.to_owned(),
            source,
        })?;
    // An editor ends the file with a newline; no password does.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(SecretError::Empty {
            file: file.to_owned(),
        });
    }
    Ok(Secret(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_files_first_line_end_and_never_shown() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), "geheim\n").expect("written");
        let secret = SecretSource::File(file.path().to_owned())
            .read()
            .expect("readable");
        assert_eq!(secret.expose(), "geheim");
        assert!(!format!("{secret:?}").contains("geheim"));
    }

    #[test]
    fn an_empty_or_missing_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        let empty = SecretSource::File(file.path().to_owned()).read();
        assert!(matches!(empty, Err(SecretError::Empty { .. })));
        let missing = SecretSource::File("/nonexistent".into()).read();
        assert!(matches!(missing, Err(SecretError::Read { .. })));
    }
}
