//! Has this password been in a breach? Asked at a range service by the first five digits of its SHA-1, so that
//! nobody there learns which password it is (k-anonymity; padding hides how many answers there were). While the
//! service is away a local filter decides, and the question is put again at the next sign-in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foundation::outbound::{Answer, CallError, Dependencies, Dependency, HttpClient, Settings as Guard};

use super::filter::{Filter, HashKind, key_of};
use super::model::sha1_hex;
use crate::settings::{BreachService, Settings};

const NAME: &str = "breach";
/// More than that are not asked about, and asked again at the next sign-in.
const AT_A_TIME: usize = 64;
const DEGRADED: &str =
    "new passwords are compared with local lists only, and once more with the service at the next sign-in";
/// More than any range has been seen to hold, padding included.
const LARGEST: usize = 512 * 1024;
const PREFIX: usize = 5;
const SUFFIX: usize = 35;
/// What the pretend service of dev mode has seen in a breach.
const PRETEND: [&str; 2] = ["correct horse battery staple", "this password was in a breach"];

/// What was found out about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is in a breach.
    Breached,
    /// It is in none that anybody here knows.
    Unknown,
    /// It is in no local list, and the service did not answer: ask again.
    NotAsked,
}

/// Everybody who can be asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Breaches {
    service: Option<Service>,
    filter: Option<Arc<Filter>>,
}

#[derive(Debug, Clone)]
enum Service {
    Range { client: HttpClient, base: String },
    Pretend(Dependency),
}

impl Breaches {
    /// From the settings; the service becomes the dependency `breach`.
    ///
    /// # Errors
    /// In words, when the filter file cannot be read.
    pub fn new(settings: &Settings, dependencies: &Dependencies) -> Result<Self, String> {
        let guard = |timeout: Duration| Guard {
            name: NAME.into(),
            timeout,
            degraded: DEGRADED,
            patience: None,
            at_a_time: AT_A_TIME,
        };
        let service = match &settings.breach_service {
            BreachService::Off => None,
            BreachService::Pretend => {
                Some(Service::Pretend(dependencies.add(guard(settings.breach_timeout))))
            }
            BreachService::Range(base) => {
                let dependency = dependencies.add(guard(settings.breach_timeout));
                Some(Service::Range {
                    client: HttpClient::new(dependency, None, LARGEST)?,
                    base: base.clone(),
                })
            }
        };
        let open = |path: &Path| {
            Filter::open(path).map(Arc::new).map_err(|e| {
                format!(
                    "passwords.breach.filter_file, {}: {e}; make one with `pearlgate breach build`",
                    path.display()
                )
            })
        };
        Ok(Self { service, filter: settings.breach_filter.as_deref().map(open).transpose()? })
    }

    /// Looks a password up.
    pub async fn find(&self, password: &str) -> Finding {
        let local = self.in_filter(password);
        if local == Some(true) {
            return Finding::Breached;
        }
        // A filter that cannot be read is somebody who was not asked.
        let Some(service) = &self.service else {
            return if local.is_some() { Finding::Unknown } else { Finding::NotAsked };
        };
        let hash = sha1_hex(password);
        let (prefix, suffix) = hash.split_at(PREFIX);
        let listed = match service {
            Service::Range { client, base } => {
                let headers = [("add-padding", "true")];
                client.get(&format!("{base}{prefix}"), &headers, |answer| listed(&answer, suffix)).await
            }
            Service::Pretend(dependency) => dependency.call(pretend(prefix, suffix)).await,
        };
        match listed {
            Ok(true) => Finding::Breached,
            Ok(false) => Finding::Unknown,
            Err(_) => Finding::NotAsked,
        }
    }

    /// None when the filter cannot be read.
    fn in_filter(&self, password: &str) -> Option<bool> {
        let Some(filter) = &self.filter else { return Some(false) };
        let found = filter.contains(filter_key(filter.kind(), password));
        found
            .inspect_err(|error| {
                tracing::error!(%error, "the breach filter cannot be read; passwords are compared without it");
            })
            .ok()
    }
}

/// What a filter knows a password by.
pub fn filter_key(kind: HashKind, password: &str) -> u64 {
    let hex = match kind {
        HashKind::Sha1 => sha1_hex(password),
        HashKind::Ntlm => ntlm_hex(password),
    };
    key_of(hex.as_bytes()).unwrap_or_default()
}

fn ntlm_hex(password: &str) -> String {
    use md4::Digest;
    let utf16: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    data_encoding::HEXUPPER.encode(&md4::Md4::digest(utf16))
}

/// Whether a range's answer has the suffix; none when it is not such an answer. A count of 0 is padding.
fn listed(answer: &Answer, suffix: &str) -> Option<bool> {
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| answer.status == 200)?;
    let mut found = false;
    let mut lines = 0;
    for line in text.lines() {
        let (digits, count) = line.split_once(':')?;
        let count: u64 = count.trim().parse().ok()?;
        if digits.len() != SUFFIX || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        found |= count > 0 && digits.eq_ignore_ascii_case(suffix);
        lines += 1;
    }
    // A range is never empty: an empty answer is somebody in between.
    (lines > 0).then_some(found)
}

async fn pretend(prefix: &str, suffix: &str) -> Result<bool, CallError> {
    Ok(PRETEND.iter().any(|known| sha1_hex(known) == format!("{prefix}{suffix}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned().into() }
    }

    #[test]
    fn a_range_is_read_strictly() {
        let (one, other) = ("0".repeat(35), "F".repeat(35));
        let range = format!("{one}:12\r\n{other}:0\r\n");
        assert_eq!(listed(&answer(200, &range), &one), Some(true));
        assert_eq!(listed(&answer(200, &range), &other), Some(false), "padding");
        assert_eq!(listed(&answer(200, &range), &"A".repeat(35)), Some(false));
        for garbage in ["", "<html>", "0000:1", &one, &format!("{one}:many"), &format!("{one}:1\n<html>")] {
            assert_eq!(listed(&answer(200, garbage), &one), None, "{garbage}");
        }
        assert_eq!(listed(&answer(404, &range), &one), None);
    }

    #[test]
    fn the_two_hashes_are_the_published_ones() {
        // FIPS 180 "abc"; the NTLM hash of "password".
        assert_eq!(sha1_hex("abc"), "A9993E364706816ABA3E25717850C26C9CD0D89D");
        assert_eq!(ntlm_hex("password"), "8846F7EAEE8FB117AD06BDD830B7586C");
        assert_eq!(filter_key(HashKind::Sha1, "abc"), 0xA999_3E36_4706_816A);
    }
}
