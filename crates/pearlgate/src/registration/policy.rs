//! Who may come: every way of coming to an address asks here, and nowhere else.

use foundation::kernel::{FieldError, Problem};

use crate::accounts::EmailAddress;
use crate::errors;
use crate::settings::PeopleSettings;

/// How somebody comes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By themselves: they register, or sign in at a provider for the first time.
    ByThemselves,
    /// Somebody who may do so wants them there: they are invited, made by an operator or imported; or they are here, and move
    /// to another address.
    Asked,
}

/// Why somebody may not come. Neither depends on who has an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Nobody comes by themselves.
    Closed,
    /// Accounts here have addresses of other domains.
    Domain,
}

impl NotAdmitted {
    /// In words for a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::Closed => {
                "Nobody registers here by themselves. Ask whoever runs this service for an invitation."
            }
            Self::Domain => "accounts here have addresses of other domains; use such an address",
        }
    }
}

impl From<NotAdmitted> for Problem {
    fn from(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Closed => errors::problem("registration_closed").detail(why.words()),
            NotAdmitted::Domain => {
                Self::invalid(vec![FieldError::new("email", "domain_not_allowed", why.words())])
            }
        }
    }
}

/// Whether somebody may come to this address in this way.
///
/// # Errors
/// [`NotAdmitted`].
pub fn admits(people: &PeopleSettings, email: &EmailAddress, how: Way) -> Result<(), NotAdmitted> {
    if how == Way::ByThemselves && !people.open {
        return Err(NotAdmitted::Closed);
    }
    let domain = email.key().rsplit_once('@').map_or("", |(_, domain)| domain);
    if people.domains.is_empty() || people.domains.iter().any(|entry| covers(entry, domain)) {
        return Ok(());
    }
    Err(NotAdmitted::Domain)
}

/// Whether an entry means a domain: itself, or, after `*.`, every domain below it and not itself.
fn covers(entry: &str, domain: &str) -> bool {
    match entry.strip_prefix("*.") {
        None => entry == domain,
        Some(parent) => domain
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|below| !below.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn people(open: bool, domains: &[&str]) -> PeopleSettings {
        PeopleSettings {
            open,
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            invitation: Duration::from_secs(604_800),
            impersonation: None,
            grace: Duration::from_secs(86_400),
        }
    }

    fn may(people: &PeopleSettings, email: &str, how: Way) -> Result<(), NotAdmitted> {
        admits(people, &EmailAddress::parse("email", email).unwrap(), how)
    }

    #[test]
    fn closed_is_for_those_who_come_by_themselves() {
        let closed = people(false, &[]);
        assert_eq!(may(&closed, "ada@example.com", Way::ByThemselves), Err(NotAdmitted::Closed));
        assert_eq!(may(&closed, "ada@example.com", Way::Asked), Ok(()));
        let open = people(true, &[]);
        assert_eq!(may(&open, "ada@example.com", Way::ByThemselves), Ok(()));
    }

    #[test]
    fn a_domain_is_itself_and_a_star_is_what_is_below() {
        let few = people(true, &["example.com", "*.example.org", "xn--bcher-kva.example"]);
        for how in [Way::ByThemselves, Way::Asked] {
            for fine in [
                "ada@example.com",
                "Ada@EXAMPLE.com",
                "ada+x@example.com",
                "ada@a.example.org",
                "ada@a.b.example.org",
                "ada@bücher.example",
            ] {
                assert_eq!(may(&few, fine, how), Ok(()), "{fine}");
            }
            for refused in [
                "ada@example.org",
                "ada@evilexample.org",
                "ada@a.example.com",
                "ada@evilexample.com",
                "ada@example.com.evil.test",
                "ada@example.org.evil.test",
                "example.com@evil.test",
            ] {
                assert_eq!(may(&few, refused, how), Err(NotAdmitted::Domain), "{refused}");
            }
        }
    }
}
