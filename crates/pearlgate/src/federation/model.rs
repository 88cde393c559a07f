//! Signing in at others, on paper: pure.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use foundation::db;
use foundation::kernel::{Digest, FieldError, Problem, Secret, sha256};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use url::{Position, Url};

use crate::accounts::{DisplayName, Locale};
use crate::errors;
use crate::sessions::Barred;

/// The one-time code that an application gets.
pub(super) const CODE: &str = "pgo_";
/// A sign-in that has yet to be completed.
pub(super) const INCOMPLETE: &str = "pgi_";
/// The wish to link an identity.
pub(super) const TICKET: &str = "pgt_";

/// How long a browser may be at a provider (`api.md`, lifetimes).
pub(super) const AT_PROVIDER: Duration = Duration::from_secs(600);
/// How long a code works (`api.md`, lifetimes).
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// How long a profile may be completed.
pub(super) const COMPLETING: Duration = Duration::from_secs(600);
/// Longer than any ID token is taken.
pub(super) const NONCE_KEPT: Duration = Duration::from_secs(1_800);

const LONGEST_RETURN: usize = 2_048;

/// What a provider said about somebody, checked. It rests sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) subject: String,
    /// As the provider has it; "" for none.
    pub(super) email: String,
    /// Whether it says that the address is proven.
    pub(super) verified: bool,
    pub(super) name: String,
    pub(super) locale: String,
    /// Whether a second factor was shown there, by a provider whose word counts.
    pub(super) level_2: bool,
    /// As it stands in the ID token.
    pub(super) nonce: String,
}

impl Said {
    /// The name, if it is one that we take.
    pub(super) fn display_name(&self) -> Option<DisplayName> {
        let name = self.name.trim();
        DisplayName::parse("display_name", name).ok().filter(|name| !name.0.is_empty())
    }

    /// The locale, or none.
    pub(super) fn locale(&self) -> Locale {
        Locale::parse("locale", &self.locale).unwrap_or_else(|_| Locale(String::new()))
    }
}

/// What a browser proves when it comes back: derived from its cookie and the state, which never stand in one place.
#[derive(Debug)]
pub(super) struct Flow<'f> {
    browser: &'f Secret,
    state: &'f Secret,
}

impl<'f> Flow<'f> {
    pub(super) fn new(browser: &'f Secret, state: &'f Secret) -> Self {
        Self { browser, state }
    }

    fn derived(&self, purpose: &[u8]) -> Secret {
        let parts = [purpose, b".", self.browser.reveal().as_bytes(), b".", self.state.reveal().as_bytes()];
        Secret::new(BASE64URL_NOPAD.encode(sha256(&parts.concat()).as_bytes()))
    }

    /// RFC 7636 §4.1.
    pub(super) fn verifier(&self) -> Secret {
        self.derived(b"verifier")
    }

    /// OpenID Connect Core §15.5.2.
    pub(super) fn nonce(&self) -> Secret {
        self.derived(b"nonce")
    }
}

/// The challenge of a verifier (RFC 7636 §4.2, S256).
pub(super) fn challenge_of(verifier: &Secret) -> String {
    BASE64URL_NOPAD.encode(verifier.digest().as_bytes())
}

/// Whether a text is such a challenge.
pub(super) fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// What a browser's cookie says that somebody pressed, on a page that only that browser was shown.
pub(super) fn pressed(browser: &Secret, ticket: &Secret) -> String {
    let parts = [b"pressed.", browser.reveal().as_bytes(), b".", ticket.reveal().as_bytes()];
    HEXLOWER.encode(&sha256(&parts.concat()).truncated::<16>())
}

/// Once for a nonce, a person and a provider.
pub(super) fn used_nonce(provider: &str, subject: &str, nonce: &str) -> Digest {
    sha256([provider, subject, nonce].join("\0").as_bytes())
}

/// Where somebody may be sent back to: a path of ours, or an origin that is in the settings. As it is kept: a path, or the
/// whole address.
pub(super) fn return_to(text: &str, public_url: &str, origins: &[String]) -> Option<String> {
    let plain = text.len() <= LONGEST_RETURN
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        && (text.starts_with('/') || text.starts_with("https://") || text.starts_with("http://"));
    let ours = Url::parse(public_url).ok()?;
    // What is added to it means something only when it is not there already.
    let added =
        |(name, _): (std::borrow::Cow<'_, str>, _)| ["code", "error", "linked"].contains(&name.as_ref());
    let url = plain.then(|| ours.join(text).ok()).flatten()?;
    let strange = !url.username().is_empty() || url.password().is_some() || url.fragment().is_some();
    if strange || url.query_pairs().any(added) {
        return None;
    }
    if url.origin() == ours.origin() {
        // Only a path stands for ourselves, and it stays one when a browser reads it.
        let path = url[Position::BeforePath..].to_owned();
        return (text.starts_with('/') && !path.starts_with("//")).then_some(path);
    }
    let origin = url.origin().ascii_serialization();
    (!text.starts_with('/') && origins.contains(&origin)).then(|| url.to_string())
}

/// The address with one more thing in its query.
pub(super) fn with(return_to: &str, public_url: &str, name: &str, value: &str) -> Option<String> {
    let mut url = Url::parse(public_url).ok()?.join(return_to).ok()?;
    url.query_pairs_mut().append_pair(name, value);
    Some(if return_to.starts_with('/') { url[Position::BeforePath..].to_owned() } else { url.to_string() })
}

/// Why somebody is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// There is no such provider, or nobody signs in through it now.
    NoProvider,
    /// That is nowhere to be sent back to.
    ReturnTo,
    /// That is no challenge.
    Challenge,
    /// The provider, by its name, does not answer; for so many seconds it is not asked.
    Away(String),
    /// The browser came back with what it did not leave with.
    State,
    /// What the provider, by its name, said cannot be believed.
    Unproven(String),
    /// The code, the completion, or what was shown with it is wrong, used or too old. One answer for all of them.
    Invalid,
    /// The account with this address has to be signed in to first, with what it has.
    SignInFirst,
    /// The identity is somebody's, or the person has another one there.
    Taken,
    /// The identity is of an account whose address nobody has proven.
    NotVerified,
    /// The last way in cannot be taken away.
    LastWayIn,
    /// A field that has to be given.
    Field(FieldError),
    /// The person may not sign in.
    Barred(Barred),
    /// Already a problem.
    Problem(Problem),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let field = |field, message: &str| Self::invalid(vec![FieldError::new(field, "invalid", message)]);
        match refusal {
            Refusal::NoProvider => Self::not_found().detail("Nobody signs in through a provider of this name here."),
            Refusal::ReturnTo => field(
                "return_to",
                "is a path of this server, such as \"/\", or an address of an origin in federation.return_origins, without a fragment, and without code, error or linked in its query",
            ),
            Refusal::Challenge => field("code_challenge", "is a SHA-256 in base64url: 43 characters (RFC 7636, S256)"),
            Refusal::Away(name) => errors::problem("provider_unavailable")
                .detail(format!("{name} is not answering. Sign in another way, or try again in a moment."))
                .retry_after(5),
            Refusal::State => Self::malformed(
                "This sign-in was not begun in this browser, was finished already, or took longer than ten minutes: begin again.",
            ),
            Refusal::Unproven(name) => errors::problem("token_invalid")
                .detail(format!("What {name} said about who you are does not hold, so you were not signed in: begin again.")),
            Refusal::Invalid | Refusal::Barred(Barred::Outdated) => errors::problem("verification_invalid").detail(
                "The code is used up, too old, or was given to another browser or application: begin again.",
            ),
            Refusal::SignInFirst => errors::problem("conflict").detail(
                "There is an account with this address. Sign in to it as you did before, then link this provider.",
            ),
            Refusal::Taken => errors::problem("conflict").detail(
                "This identity is linked to an account already, or your account has another one of this provider.",
            ),
            Refusal::NotVerified => errors::problem("email_not_verified"),
            Refusal::LastWayIn => errors::problem("last_sign_in_method"),
            Refusal::Field(error) => Self::invalid(vec![error]),
            Refusal::Barred(Barred::Suspended) => errors::problem("account_suspended"),
            Refusal::Problem(problem) => problem,
            Refusal::Fault(error) => error.to_problem(),
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Self::Fault(error)
    }
}
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "https://id.example.com";

    fn to(text: &str) -> Option<String> {
        return_to(text, OURS, &["https://app.example.com".to_owned(), "http://localhost:3000".to_owned()])
    }

    #[test]
    fn one_is_sent_back_to_ones_own_pages_and_named_origins_alone() {
        for (given, kept) in [
            ("/", "/"),
            ("/account?tab=1", "/account?tab=1"),
            ("/a/../b", "/b"),
            ("/%09/evil", "/%09/evil"),
            ("https://app.example.com", "https://app.example.com/"),
            ("https://app.example.com/in?x=1", "https://app.example.com/in?x=1"),
            ("https://APP.example.com:443/", "https://app.example.com/"),
            ("http://localhost:3000/", "http://localhost:3000/"),
        ] {
            assert_eq!(to(given).as_deref(), Some(kept), "{given}");
        }
        let long = format!("/{}", "a".repeat(65_536));
        for evil in [
            "",
            "docs",
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "https:evil",
            "https:/evil",
            "/\t/evil",
            "\t//evil",
            " //evil",
            "//evil.example/%2f..",
            "/..//evil.example",
            "/.//evil.example",
            "https://id.example.com@evil",
            "https://id.example.com.evil",
            "https://evil/",
            "javascript:alert(1)",
            "data:text/html,x",
            "/a\r\nset-cookie: x",
            "/a#fragment",
            "https://app.example.com.evil/",
            "https://user@app.example.com/",
            "http://app.example.com/",
            "https://app.example.com:8443/",
            "https://[::1]/",
            "http://127.0.0.1:3000/",
            "file:///etc",
            "/?code=pgo_1",
            "/?a=b&error=x",
            "/?linked=google",
            "/?c%6fde=x",
            &long,
        ] {
            assert_eq!(to(evil), None, "{evil:?}");
        }
    }

    #[test]
    fn what_is_added_stands_in_the_query() {
        assert_eq!(with("/", OURS, "code", "pgo_1").as_deref(), Some("/?code=pgo_1"));
        assert_eq!(with("/a?b=c", OURS, "code", "1&2").as_deref(), Some("/a?b=c&code=1%262"));
        assert_eq!(
            with("https://app.example.com/in", OURS, "error", "x").as_deref(),
            Some("https://app.example.com/in?error=x")
        );
    }

    proptest! {
        #[test]
        fn nothing_leads_elsewhere(text in "[ /\\\\:@?#.%a-z0-9\\t\\n\u{ff0f}-]{0,24}") {
            if let Some(kept) = to(&text) {
                let there = Url::parse(OURS).unwrap().join(&kept).unwrap();
                let origin = there.origin().ascii_serialization();
                prop_assert!([OURS, "https://app.example.com", "http://localhost:3000"].contains(&origin.as_str()), "{text:?}");
            }
        }
    }

    #[test]
    fn a_flow_is_of_one_browser_and_one_state() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let (one, other, state) = (secret("one"), secret("other"), secret("state"));
        let flow = Flow::new(&one, &state);
        assert_eq!(flow.verifier().reveal().len(), 43);
        assert_ne!(flow.verifier().reveal(), flow.nonce().reveal());
        assert_ne!(flow.verifier().reveal(), Flow::new(&other, &state).verifier().reveal());
        assert_ne!(flow.verifier().reveal(), Flow::new(&one, &other).verifier().reveal());
        assert_ne!(pressed(&one, &state), pressed(&other, &state));
        // RFC 7636, appendix B.
        let verifier = secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge_of(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(
            is_challenge(&challenge_of(&verifier))
                && !is_challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw=cM")
        );
    }
}
