//! The mailbox in the browser: where dev mode's mail arrives. In memory, the newest thousand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

use super::Message;
use crate::kernel::Clock;

const MOST: usize = 1_000;

/// A mail that arrived.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// The mail's id.
    pub id: String,
    /// The template's name.
    pub kind: String,
    /// Whom it was for.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its text part.
    pub text: String,
    /// Its HTML part.
    pub html: String,
    /// The links of the text part, in order.
    pub links: Vec<String>,
    /// The code in it; empty when there is none.
    pub code: String,
    /// When it arrived.
    pub created_at: String,
}

/// Keeps what arrives. Cheap to clone; clones are the same mailbox.
#[derive(Debug, Clone)]
pub struct Mailbox {
    clock: Clock,
    mails: Arc<Mutex<VecDeque<Kept>>>,
    arrived: Arc<Notify>,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(clock: Clock) -> Self {
        Self { clock, mails: Arc::default(), arrived: Arc::default() }
    }

    pub(super) fn keep(&self, message: &Message) {
        let kept = Kept {
            id: message.id.to_string(),
            kind: message.kind.clone(),
            to: message.to.clone(),
            subject: message.subject.clone(),
            links: links(&message.text),
            text: message.text.clone(),
            html: message.html.clone(),
            code: message.code.clone(),
            created_at: self.clock.now().to_string(),
        };
        let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        mails.push_front(kept);
        mails.truncate(MOST);
        drop(mails);
        self.arrived.notify_waiters();
    }

    /// Completes when the next mail arrives after this call.
    pub fn next_arrival(&self) -> tokio::sync::futures::Notified<'_> {
        self.arrived.notified()
    }

    /// What arrived, newest first: all of it, or what is for `to` or of this `kind`.
    pub fn list(&self, to: Option<&str>, kind: Option<&str>) -> Vec<Kept> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |mail: &&Kept| {
            to.is_none_or(|to| mail.to.eq_ignore_ascii_case(to.trim()))
                && kind.is_none_or(|kind| mail.kind == kind)
        };
        mails.iter().filter(wanted).cloned().collect()
    }
}

/// Everything in a text that looks like a web address.
fn links(text: &str) -> Vec<String> {
    let is_link = |word: &&str| word.starts_with("http://") || word.starts_with("https://");
    text.split_whitespace().filter(is_link).map(str::to_owned).collect()
}
