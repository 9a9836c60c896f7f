//! A finding is one thing that was looked at, with its figure and how well it is.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Grade {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// As monitoring systems have it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// What is known to be wrong outweighs what is not known.
    const fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    pub grade: Grade,
    pub figure: String,
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Grade {
    let grades = findings.iter().map(|finding| finding.grade);
    grades
        .max_by_key(|grade| grade.weight())
        .unwrap_or(Grade::Unknown)
}

pub(super) fn finding(name: &str, grade: Grade, figure: impl Into<String>) -> Finding {
    Finding {
        name: name.to_owned(),
        grade,
        figure: figure.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_outweighs_what_is_unknown() {
        let of = |grades: &[Grade]| {
            let findings: Vec<_> = grades.iter().map(|it| finding("", *it, "")).collect();
            worst(&findings)
        };
        assert_eq!(of(&[Grade::Ok, Grade::Unknown]), Grade::Unknown);
        assert_eq!(of(&[Grade::Warning, Grade::Unknown]), Grade::Warning);
        assert_eq!(of(&[Grade::Critical, Grade::Warning]), Grade::Critical);
        assert_eq!(of(&[Grade::Ok]), Grade::Ok);
    }
}
