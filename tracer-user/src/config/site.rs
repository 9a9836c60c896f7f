//! A site rule says of some frames whether they are the user's own code; it comes before those
//! that are built in.

use serde::{Deserialize, Serialize};

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Function,
    File,
    Module,
}

/// Says that the frames it matches are not (or, for `application`, are) the user's own code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteRule {
    pub subject: Subject,
    /// `*` stands for any text. A module's pattern without a slash is about its last part.
    pub pattern: String,
    /// Overrules the rules after it: these frames are the user's, whatever else matches.
    #[serde(default)]
    pub application: bool,
}
