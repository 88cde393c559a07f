//! From a template's name and its values to a message with a text and an HTML part.

use std::sync::Arc;

use minijinja::Environment;

use super::{Mail, MailRow};
use crate::kernel::Id;

/// A rendered mail.
#[derive(Debug, Clone)]
pub struct Message {
    /// Stays the same however often it is sent.
    pub id: Id<MailRow>,
    /// The template's name.
    pub kind: String,
    /// One address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The text part.
    pub text: String,
    /// The HTML part, every value escaped.
    pub html: String,
    /// The code in it; empty when there is none.
    pub code: String,
}

/// Renders `mails/<kind>/subject.txt`, `text.txt` and `html.html`. Cheap to clone.
#[derive(Clone)]
pub struct Renderer(Arc<Environment<'static>>);

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renderer")
    }
}

impl Renderer {
    /// From an environment that holds the templates; names that end in `.html` are escaped.
    pub fn new(environment: Arc<Environment<'static>>) -> Self {
        Self(environment)
    }

    /// The message for a mail.
    ///
    /// # Errors
    /// In words, when a template is missing or fails.
    pub fn render(&self, id: Id<MailRow>, mail: &Mail) -> Result<Message, String> {
        let part = |name: &str| {
            let template = self.0.get_template(&format!("mails/{}/{name}", mail.kind));
            template
                .and_then(|t| t.render(minijinja::value::Serde(&mail.values)))
                .map_err(|e| format!("mail {}: {e}", mail.kind))
        };
        Ok(Message {
            id,
            kind: mail.kind.clone(),
            to: mail.to.clone(),
            // One line whatever the template says: a subject is a header.
            subject: part("subject.txt")?.split_whitespace().collect::<Vec<_>>().join(" "),
            text: part("text.txt")?,
            html: part("html.html")?,
            code: mail.values.get("code").and_then(|code| code.as_str()).unwrap_or_default().to_owned(),
        })
    }
}
