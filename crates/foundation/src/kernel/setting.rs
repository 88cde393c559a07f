//! A setting that a part cannot work with: told by the part, placed by whoever read the settings.

/// Which setting, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {what}")]
pub struct WrongSetting {
    /// The key, such as `mail.from`.
    pub key: &'static str,
    /// What is wrong, continuing the key: "is not …".
    pub what: String,
}

impl WrongSetting {
    /// A setting that cannot be used.
    pub fn new(key: &'static str, what: impl Into<String>) -> Self {
        Self { key, what: what.into() }
    }
}
