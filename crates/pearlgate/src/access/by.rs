//! Who does something to somebody else.

use foundation::http::ClientAddress;
use foundation::kernel::Id;

use super::keys::KeyRow;
use crate::accounts::UserRow;
use crate::sessions::SessionRow;

/// Whoever acts as an operator, and from where.
#[derive(Debug, Clone, Copy)]
pub struct By {
    /// Who.
    pub who: Who,
    /// From where; nothing for what comes from inside.
    pub from: ClientAddress,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A person, signed in with a second factor.
    Person(Id<UserRow>, Id<SessionRow>),
    /// A machine, with a key that somebody made.
    Key(Id<KeyRow>, Id<UserRow>),
    /// Whoever runs commands on the server's own machine: they can do everything anyhow.
    Console,
}

impl By {
    /// Whoever sits at the server.
    pub fn console() -> Self {
        Self { who: Who::Console, from: ClientAddress::NOWHERE }
    }

    /// The person who acts, or whose key does.
    pub fn person(&self) -> Option<Id<UserRow>> {
        match self.who {
            Who::Person(user, _) | Who::Key(_, user) => Some(user),
            Who::Console => None,
        }
    }

    /// As it is written down: the id of the person or of the key, or `console`.
    pub fn actor(&self) -> String {
        match self.who {
            Who::Person(user, _) => user.to_string(),
            Who::Key(key, _) => key.to_string(),
            Who::Console => "console".into(),
        }
    }

    /// The session in which a person acts; empty for everybody else.
    pub fn session(&self) -> String {
        match self.who {
            Who::Person(_, session) => session.to_string(),
            Who::Key(..) | Who::Console => String::new(),
        }
    }
}
