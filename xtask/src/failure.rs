//! The one kind of error here: words for the person at the terminal.

use std::fmt;

/// What happened, why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: String,
    remedy: String,
}

/// What most functions here return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure in three sentences' parts, none of which ends with a full stop.
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// The same failure, told as part of something larger.
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  because: {}\n  to do:   {}", self.what, self.why, self.remedy)
    }
}

/// Makes a failure of an I/O error: what we wanted to do, and what usually helps.
pub(crate) trait OrFail<T> {
    /// Adds the words to the error.
    fn or_fail(self, what: impl Into<String>, remedy: &str) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl Into<String>, remedy: &str) -> Outcome<T> {
        self.map_err(|error| Failure::new(what, error, remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failure = Failure::new("no Redis", "it is not installed", "install it").within("services");
        assert_eq!(
            failure.to_string(),
            "services: no Redis\n  because: it is not installed\n  to do:   install it"
        );
    }
}
