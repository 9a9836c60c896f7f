//! A problem is what is wrong with a configuration, and the way to it in the file.

/// A step of the way to a value in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(&'static str),
    Index(usize),
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub path: Vec<Step>,
    pub message: String,
}

/// Collects the problems of one block.
pub(super) struct Block<'a> {
    path: Vec<Step>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Block<'a> {
    pub(super) fn at(path: Vec<Step>, problems: &'a mut Vec<Problem>) -> Self {
        Self { path, problems }
    }

    pub(super) fn require(
        &mut self,
        holds: bool,
        key: &'static str,
        message: impl FnOnce() -> String,
    ) {
        if !holds {
            let path = self.path.iter().cloned().chain([Step::Key(key)]).collect();
            self.problems.push(Problem {
                path,
                message: message(),
            });
        }
    }
}
