//! What a provider is: what its settings make of it, pure.

use std::time::Duration;

use foundation::kernel::Secret;
use jsonwebtoken::EncodingKey;
use url::Url;

use crate::settings::RawProvider;

/// The pretend provider of dev mode.
pub const PRETEND: &str = "dev";

/// What stands in addresses in the place of a provider's name.
pub(super) const RESERVED: [&str; 3] = [PRETEND, "exchange", "complete"];

const GITHUB: &str = "https://github.com";
const GITHUB_API: &str = "https://api.github.com";
const GOOGLE: &str = "https://accounts.google.com";
const APPLE: &str = "https://appleid.apple.com";
/// `{tenantid}` stands for the tenant that somebody is in, until it is known.
const MICROSOFT: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";
/// The tenant of everybody's private Microsoft account.
const MICROSOFT_CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const TENANT: &str = "{tenantid}";

/// Somebody who signs people in.
#[derive(Debug)]
pub struct Provider {
    /// As it stands in addresses, and in `federated_identities`.
    pub id: String,
    /// As people see it.
    pub name: String,
    /// Whether it is switched on in the settings.
    pub(super) enabled: bool,
    pub(super) kind: Kind,
    pub(super) client_id: String,
    pub(super) client: Client,
    /// Whom an ID token may be for that somebody brings.
    pub(super) native_client_ids: Vec<String>,
    pub(super) scopes: String,
    authoritative_for: Vec<String>,
    believe_email: bool,
    pub(super) trusted_amr: Vec<String>,
    pub(super) trusted_acr: Vec<String>,
    pub(super) max_age: Option<Duration>,
    /// Whether it posts its answer.
    pub(super) posts: bool,
}

/// What it speaks.
#[derive(Debug)]
pub(super) enum Kind {
    /// OpenID Connect.
    Oidc(Issuer),
    /// OAuth 2.0 and GitHub's API: where people are, and where the API is.
    GitHub { base: String, api: String },
    /// Dev mode's own page.
    Pretend,
}

/// What an OpenID provider calls itself.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Whether everybody's private accounts are not among its tenants.
    organizations: bool,
    /// To the letter; with [`TENANT`] in it when it has many.
    pub(super) name: String,
    /// Where it describes itself.
    pub(super) discovery: String,
}

impl Issuer {
    fn new(name: &str, tenant: &str) -> Self {
        let at = name.replace(TENANT, tenant);
        let discovery = format!("{}/.well-known/openid-configuration", at.trim_end_matches('/'));
        Self { organizations: tenant == "organizations", name: name.to_owned(), discovery }
    }

    /// What `iss` has to be, to the letter, in a token of this tenant.
    pub(super) fn of(&self, tenant: Option<&str>) -> Option<String> {
        if !self.name.contains(TENANT) {
            return Some(self.name.clone());
        }
        let tenant = tenant.filter(|tenant| is_tenant(tenant))?;
        let private = self.organizations && tenant == MICROSOFT_CONSUMERS;
        (!private).then(|| self.name.replace(TENANT, tenant))
    }

    /// Whether a key is for tokens of this issuer: one that says whose it is signs nobody else's.
    pub(super) fn has_key_of(&self, key_issuer: Option<&str>, tenant: Option<&str>) -> bool {
        let theirs =
            key_issuer.map(|name| tenant.map_or_else(|| name.to_owned(), |t| name.replace(TENANT, t)));
        theirs.is_none_or(|theirs| self.of(tenant) == Some(theirs))
    }

    /// What it calls somebody, of whichever of its tenants: without it, another tenant's may be called so as well.
    pub(super) fn subject(&self, tenant: Option<&str>, subject: &str) -> String {
        match tenant.filter(|_| self.name.contains(TENANT)) {
            Some(tenant) => format!("{tenant}|{subject}"),
            None => subject.to_owned(),
        }
    }

    /// Whether an answer may be its own: of any of its tenants, because which one it is stands in the token.
    fn could_be(&self, name: &str) -> bool {
        let Some((before, after)) = self.name.split_once(TENANT) else { return name == self.name };
        let tenant = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        tenant.is_some_and(is_tenant)
    }
}

fn is_tenant(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

/// How we say who we are (RFC 6749 §2.3).
pub(super) enum Client {
    /// By name alone: PKCE has to do.
    Public,
    /// With a password in a header.
    Basic(Secret),
    /// With a password in the body.
    Post(Secret),
    /// With a token that Apple's key signs.
    Apple { team: String, key_id: String, key: Box<EncodingKey> },
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "Public",
            Self::Basic(_) => "Basic",
            Self::Post(_) => "Post",
            Self::Apple { .. } => "Apple",
        })
    }
}

/// A key of the settings, and what is wrong with its value.
type Wrong = (&'static str, String);

impl Provider {
    /// Makes a provider of its settings.
    ///
    /// # Errors
    /// The first key that cannot stand, and why.
    pub fn check(id: &str, raw: &RawProvider) -> Result<Self, Wrong> {
        if RESERVED.contains(&id) || id.is_empty() || id.len() > 32 {
            let what = "is in a section whose name is taken (dev, exchange, complete), empty, or longer than 32 letters";
            return Err(("preset", what.to_owned()));
        }
        let preset = match raw.preset.as_str() {
            "" if ["google", "github", "microsoft", "apple"].contains(&id) => id,
            "" => "oidc",
            preset => preset,
        };
        let (called, kind, scopes, authoritative) = match preset {
            "google" => {
                ("Google", oidc(raw, GOOGLE)?, "openid email profile", &["gmail.com", "googlemail.com"][..])
            }
            "github" => ("GitHub", github(raw)?, "read:user user:email", &[][..]),
            "microsoft" => ("Microsoft", microsoft(raw)?, "openid email profile", &[][..]),
            "apple" => ("Apple", oidc(raw, APPLE)?, "openid name email", &["privaterelay.appleid.com"][..]),
            "oidc" => (id, oidc(raw, "")?, "openid email profile", &[][..]),
            _ => {
                return Err((
                    "preset",
                    "is \"google\", \"github\", \"microsoft\", \"apple\" or \"oidc\"".into(),
                ));
            }
        };
        if raw.client_id.is_empty() || raw.client_id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(("client_id", "is not set: it is what the provider calls this server".into()));
        }
        let max_age = match raw.max_age.as_str() {
            "0" | "0s" => None,
            text => Some(humantime::parse_duration(text).map_err(|_| {
                ("max_age", format!("is {text:?}; give a duration such as \"1h\", or \"0\" for any age"))
            })?),
        };
        if max_age.is_some() && preset == "github" {
            return Err(("max_age", "is nothing that GitHub knows: leave it out".into()));
        }
        let scopes = if raw.scopes.is_empty() { scopes.to_owned() } else { raw.scopes.join(" ") };
        if matches!(kind, Kind::Oidc(_)) && !scopes.split(' ').any(|scope| scope == "openid") {
            return Err(("scopes", "has no \"openid\", without which there is no ID token".into()));
        }
        let domains =
            |all: &[String]| all.iter().map(|domain| domain.to_ascii_lowercase()).collect::<Vec<_>>();
        let authoritative_for = match raw.authoritative_for.as_slice() {
            [] => authoritative.iter().map(|domain| (*domain).to_owned()).collect(),
            all => domains(all),
        };
        if max_age.is_none() && !(raw.trusted_amr.is_empty() && raw.trusted_acr.is_empty()) {
            let what = "is \"0\", and trusted_amr or trusted_acr stand: say how old such a sign-in may be, such as \"12h\"";
            return Err(("max_age", what.into()));
        }
        let name = if raw.name.is_empty() { called } else { &raw.name };
        if name.chars().count() > 50 || name.chars().any(char::is_control) {
            return Err(("name", "is one line of at most 50 characters".into()));
        }
        Ok(Self {
            id: id.to_owned(),
            name: name.to_owned(),
            enabled: raw.enabled,
            kind,
            client_id: raw.client_id.clone(),
            client: client(raw, preset)?,
            native_client_ids: raw.native_client_ids.clone(),
            posts: preset == "apple" && scopes.split(' ').any(|scope| ["name", "email"].contains(&scope)),
            scopes,
            authoritative_for,
            believe_email: raw.believe_email,
            trusted_amr: raw.trusted_amr.clone(),
            trusted_acr: raw.trusted_acr.clone(),
            max_age,
        })
    }

    /// The pretend provider of dev mode.
    pub fn pretend() -> Self {
        Self {
            id: PRETEND.to_owned(),
            name: "Pretend".to_owned(),
            enabled: true,
            kind: Kind::Pretend,
            client_id: String::new(),
            client: Client::Public,
            native_client_ids: Vec::new(),
            scopes: String::new(),
            authoritative_for: Vec::new(),
            believe_email: true,
            trusted_amr: Vec::new(),
            trusted_acr: Vec::new(),
            max_age: None,
            posts: false,
        }
    }

    /// Whose subjects it has: as it calls itself.
    pub(super) fn issuer(&self) -> &str {
        match &self.kind {
            Kind::Oidc(issuer) => &issuer.name,
            Kind::GitHub { base, .. } => base,
            Kind::Pretend => PRETEND,
        }
    }

    /// Whether an answer that says who gave it is somebody else's (RFC 9207 §2.4), an error as well.
    pub(super) fn is_not(&self, iss: &str) -> bool {
        match &self.kind {
            Kind::Oidc(issuer) => !issuer.could_be(iss),
            Kind::GitHub { .. } | Kind::Pretend => false,
        }
    }

    /// Whether an address that it calls verified is one, for somebody who has no account here.
    pub(super) fn is_believed(&self) -> bool {
        self.believe_email
    }

    /// Whether it hands out the mailboxes of an address's domain itself.
    pub(super) fn is_authoritative_for(&self, address_key: &str) -> bool {
        let domain = address_key.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.authoritative_for.iter().any(|known| known == "*" || known == domain)
    }
}

/// An address as it is to be compared: kept to the letter.
fn address(key: &'static str, text: &str) -> Result<String, Wrong> {
    let wrong = |what: &str| (key, format!("is {text:?}; {what}"));
    let url = Url::parse(text).map_err(|_| wrong("give an address such as \"https://id.example.com\""))?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(wrong("give an https address"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(wrong("give scheme, host and path alone"));
    }
    Ok(text.to_owned())
}

fn oidc(raw: &RawProvider, preset: &str) -> Result<Kind, Wrong> {
    let name = match (raw.issuer.as_str(), preset) {
        ("", "") => {
            return Err((
                "issuer",
                "is not set: it is what the provider calls itself, an https address".into(),
            ));
        }
        ("", preset) => preset.to_owned(),
        (own, _) => address("issuer", own)?,
    };
    if name.contains('{') {
        return Err(("issuer", "has a brace: only \"microsoft\" has tenants".into()));
    }
    Ok(Kind::Oidc(Issuer::new(&name, "")))
}

fn microsoft(raw: &RawProvider) -> Result<Kind, Wrong> {
    let pattern = if raw.issuer.is_empty() { MICROSOFT.to_owned() } else { address("issuer", &raw.issuer)? };
    let tenant = raw.tenant.to_ascii_lowercase();
    Ok(Kind::Oidc(match tenant.as_str() {
        "common" | "organizations" => Issuer::new(&pattern, &tenant),
        "consumers" => Issuer::new(&pattern.replace(TENANT, MICROSOFT_CONSUMERS), ""),
        id if is_tenant(id) => Issuer::new(&pattern.replace(TENANT, id), ""),
        _ => return Err((
            "tenant",
            "is the id of a tenant (\"8eaef023-2b34-4da1-9baa-8bc8c9d6a490\"), \"common\", \"organizations\" or \"consumers\"".into(),
        )),
    }))
}

fn github(raw: &RawProvider) -> Result<Kind, Wrong> {
    if raw.issuer.is_empty() || raw.issuer == GITHUB {
        return Ok(Kind::GitHub { base: GITHUB.into(), api: GITHUB_API.into() });
    }
    let base = address("issuer", &raw.issuer)?.trim_end_matches('/').to_owned();
    Ok(Kind::GitHub { api: format!("{base}/api/v3"), base })
}

fn client(raw: &RawProvider, preset: &str) -> Result<Client, Wrong> {
    if preset == "apple" && !raw.private_key.reveal().is_empty() {
        let key = EncodingKey::from_ec_pem(raw.private_key.reveal().as_bytes())
            .map_err(|_| ("private_key", "is not the PEM file of Apple's key".to_owned()))?;
        if raw.team_id.is_empty() || raw.key_id.is_empty() {
            return Err((
                "team_id",
                "and key_id go with private_key: Apple shows them beside the key".into(),
            ));
        }
        return Ok(Client::Apple {
            team: raw.team_id.clone(),
            key_id: raw.key_id.clone(),
            key: Box::new(key),
        });
    }
    let secret = raw.client_secret.clone();
    match (secret.reveal(), raw.client_auth.as_str()) {
        ("", _) => Ok(Client::Public),
        (_, "post") => Ok(Client::Post(secret)),
        (_, "basic") if preset == "github" => Ok(Client::Post(secret)),
        (_, "basic") => Ok(Client::Basic(secret)),
        _ => Err(("client_auth", "is \"basic\" or \"post\"".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::provider_of;

    fn made(id: &str, text: &str) -> Provider {
        provider_of(id, text).unwrap_or_else(|why| panic!("{id}, {text}: {why}"))
    }

    /// What an OpenID provider is called, and where it describes itself.
    fn issuer(provider: &Provider) -> (&str, &str) {
        match &provider.kind {
            Kind::Oidc(issuer) => (&issuer.name, &issuer.discovery),
            other => panic!("{other:?}"),
        }
    }

    const CLIENT: &str = "client_id = \"c\"\nclient_secret = \"s\"\n";
    const TENANT_ID: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";

    #[test]
    fn a_preset_is_what_its_provider_documents() {
        let google = made("google", CLIENT);
        let at = "https://accounts.google.com/.well-known/openid-configuration";
        assert_eq!(issuer(&google), ("https://accounts.google.com", at));
        assert_eq!((google.name.as_str(), google.scopes.as_str()), ("Google", "openid email profile"));
        assert!(matches!(google.client, Client::Basic(_)) && google.is_believed() && !google.posts);
        for (address, theirs) in [
            ("a@gmail.com", true),
            ("a@googlemail.com", true),
            ("a@example.com", false),
            ("gmail.com", false),
        ] {
            assert_eq!(google.is_authoritative_for(address), theirs, "{address}");
        }

        let github = made("github", CLIENT);
        let Kind::GitHub { base, api } = &github.kind else { panic!("{github:?}") };
        assert_eq!((base.as_str(), api.as_str()), ("https://github.com", "https://api.github.com"));
        assert_eq!((github.scopes.as_str(), github.issuer()), ("read:user user:email", "https://github.com"));
        assert!(matches!(github.client, Client::Post(_)));
        let own =
            made("work", &format!("{CLIENT}preset = \"github\"\nissuer = \"https://git.example.com/\"\n"));
        let Kind::GitHub { base, api } = &own.kind else { panic!("{own:?}") };
        assert_eq!(
            (base.as_str(), api.as_str()),
            ("https://git.example.com", "https://git.example.com/api/v3")
        );

        let apple = made("apple", CLIENT);
        assert_eq!(issuer(&apple).0, "https://appleid.apple.com");
        assert!(apple.posts && apple.scopes == "openid name email");
        assert!(
            !made("apple", &format!("{CLIENT}scopes = [\"openid\"]")).posts,
            "nothing is asked for that it posts"
        );

        let work = made(
            "work",
            &format!(
                "{CLIENT}issuer = \"https://id.example.com/realm/\"\nauthoritative_for = [\"Example.COM\"]"
            ),
        );
        let at = "https://id.example.com/realm/.well-known/openid-configuration";
        assert_eq!(issuer(&work), ("https://id.example.com/realm/", at), "to the letter, slash and all");
        assert!(
            work.name == "work"
                && work.is_authoritative_for("a@example.com")
                && !work.is_authoritative_for("a@sub.example.com")
        );
    }

    #[test]
    fn microsofts_tenants_are_one_or_many() {
        let of = |tenant: &str| made("microsoft", &format!("{CLIENT}tenant = \"{tenant}\""));
        let one = of(TENANT_ID);
        assert_eq!(issuer(&one).0, format!("https://login.microsoftonline.com/{TENANT_ID}/v2.0"));
        let private = of("consumers");
        assert_eq!(
            issuer(&private).0,
            format!("https://login.microsoftonline.com/{MICROSOFT_CONSUMERS}/v2.0")
        );
        for (tenant, takes_private) in [("common", true), ("organizations", false)] {
            let many = of(tenant);
            let Kind::Oidc(issuer) = &many.kind else { panic!("{many:?}") };
            assert_eq!(
                issuer.discovery,
                format!("https://login.microsoftonline.com/{tenant}/v2.0/.well-known/openid-configuration")
            );
            assert_eq!(
                issuer.of(Some(TENANT_ID)),
                Some(format!("https://login.microsoftonline.com/{TENANT_ID}/v2.0"))
            );
            assert_eq!(issuer.of(Some(MICROSOFT_CONSUMERS)).is_some(), takes_private, "{tenant}");
            assert_eq!(issuer.of(None), None);
            assert_eq!(issuer.subject(Some(TENANT_ID), "s"), format!("{TENANT_ID}|s"));
        }
    }

    #[test]
    fn what_cannot_be_a_provider_is_refused_with_its_key() {
        for (id, text, key) in [
            ("google", "name = \"G\"", "client_id"),
            ("google", "client_id = \"a b\"", "client_id"),
            ("work", CLIENT, "issuer"),
            ("work", &format!("{CLIENT}issuer = \"id.example.com\""), "issuer"),
            ("work", &format!("{CLIENT}issuer = \"ftp://id.example.com\""), "issuer"),
            ("work", &format!("{CLIENT}issuer = \"https://id.example.com/?a=b\""), "issuer"),
            ("work", &format!("{CLIENT}issuer = \"https://u:p@id.example.com\""), "issuer"),
            ("work", &format!("{CLIENT}issuer = \"https://id.example.com/{{tenantid}}\""), "issuer"),
            ("work", &format!("{CLIENT}preset = \"facebook\""), "preset"),
            ("dev", CLIENT, "preset"),
            ("exchange", CLIENT, "preset"),
            ("complete", CLIENT, "preset"),
            ("a-name-that-is-longer-than-32-letters", CLIENT, "preset"),
            ("google", &format!("{CLIENT}client_auth = \"digest\""), "client_auth"),
            ("google", &format!("{CLIENT}scopes = [\"email\"]"), "scopes"),
            ("google", &format!("{CLIENT}max_age = \"soon\""), "max_age"),
            ("google", &format!("{CLIENT}trusted_amr = [\"mfa\"]"), "max_age"),
            ("google", &format!("{CLIENT}trusted_acr = [\"2\"]"), "max_age"),
            ("github", &format!("{CLIENT}max_age = \"1h\""), "max_age"),
            ("google", &format!("{CLIENT}name = \"two\\nlines\""), "name"),
            ("microsoft", CLIENT, "tenant"),
            ("microsoft", &format!("{CLIENT}tenant = \"contoso.onmicrosoft.com\""), "tenant"),
            ("apple", &format!("{CLIENT}private_key = \"not a key\""), "private_key"),
            ("google", "secret = \"s\"", "secret"),
        ] {
            let refused = provider_of(id, text).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains(&format!("`providers.{id}.{key}`")), "{id}, {text}: {refused}");
        }
        for id in ["", "Google", "a b", "a.b", "a/b"] {
            let refused = provider_of(id, CLIENT).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains("small letters"), "{id:?}: {refused}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let shown = format!("{:?}", made("google", "client_id = \"c\"\nclient_secret = \"hunter2\""));
        assert!(shown.contains("Basic") && !shown.contains("hunter2"), "{shown}");
    }
}
