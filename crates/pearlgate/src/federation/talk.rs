//! What is asked of a provider, each in one conversation within its budget: where to send a browser, and what it says about
//! whoever comes back.

use std::time::Duration;

use data_encoding::BASE64;
use foundation::kernel::{Clock, Secret};
use foundation::outbound::{Answer, Asking, CallError};
use jsonwebtoken::{Algorithm, Header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::model::{Flow, Said, challenge_of};
use super::provider::{Client, Issuer, Kind, Provider};
use super::registry::{Connection, Reach};
use super::tokens::{Claims, Expected, Flaw, subject};

/// Where Apple wants its tokens to be for.
const APPLE: &str = "https://appleid.apple.com";
const APPLE_SECRET: Duration = Duration::from_secs(300);
const MANY: usize = 100;
const JSON: (&str, &str) = ("accept", "application/json");

/// Why a provider gave nothing.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It is away.
    Away(CallError),
    /// It said something, which does not hold.
    Flaw(Flaw),
}

impl From<CallError> for NoAnswer {
    fn from(error: CallError) -> Self {
        Self::Away(error)
    }
}

/// What a browser came back with.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    pub(super) code: Secret,
    /// RFC 9207.
    pub(super) iss: Option<String>,
}

impl Connection {
    /// Where a browser is sent; none for the provider that is a page of ours.
    pub(super) async fn authorization(
        &self,
        flow: &Flow<'_>,
        state: &Secret,
        redirect_uri: &str,
    ) -> Result<Option<Url>, CallError> {
        let anew = self.is_down();
        let client = match &self.reach {
            Reach::Here(dependency) => return dependency.call(async { Ok(None) }).await,
            Reach::Http(client) => client,
        };
        let provider = &self.provider;
        let found = client.converse(|asking| async move {
            let (endpoint, open_id) = match &provider.kind {
                Kind::Oidc(issuer) => {
                    let discovery = self.metadata.discovery(&asking, issuer, anew).await?;
                    (discovery.authorization_endpoint.clone(), true)
                }
                Kind::GitHub { base, api } => {
                    if anew {
                        // Whatever it answers, it answers.
                        asking.get(&format!("{api}/"), &[JSON]).await?;
                    }
                    (format!("{base}/login/oauth/authorize"), false)
                }
                Kind::Pretend => return Ok(None),
            };
            let url = Url::parse(&endpoint).map_err(|_| no_sense())?;
            asking.admits(&url)?;
            Ok(Some((url, open_id)))
        });
        let Some((mut url, open_id)) = found.await? else { return Ok(None) };
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &provider.client_id)
                .append_pair("redirect_uri", redirect_uri)
                .append_pair("scope", &provider.scopes)
                .append_pair("state", state.reveal())
                .append_pair("code_challenge", &challenge_of(&flow.verifier()))
                .append_pair("code_challenge_method", "S256");
            if open_id {
                query.append_pair("nonce", flow.nonce().reveal());
            }
            if let Some(max_age) = provider.max_age {
                query.append_pair("max_age", &max_age.as_secs().to_string());
            }
            if provider.posts {
                query.append_pair("response_mode", "form_post");
            }
        }
        Ok(Some(url))
    }

    /// What the provider says about whoever came back.
    pub(super) async fn ask(
        &self,
        flow: &Flow<'_>,
        brought: &Brought,
        redirect_uri: &str,
        clock: &Clock,
    ) -> Result<Said, NoAnswer> {
        let client = match &self.reach {
            Reach::Here(dependency) => {
                let said = pretend(brought.code.reveal());
                return dependency.call(async { Ok(said) }).await?.ok_or(NoAnswer::Flaw(Flaw::Code));
            }
            Reach::Http(client) => client,
        };
        let said = client.converse(|asking| async move {
            let talk = Talk { connection: self, asking: &asking, clock };
            match &self.provider.kind {
                Kind::Oidc(issuer) => talk.open_id(issuer, flow, brought, redirect_uri).await,
                Kind::GitHub { base, api } => talk.github((base, api), flow, brought, redirect_uri).await,
                Kind::Pretend => Ok(Err(Flaw::Code)),
            }
        });
        said.await?.map_err(NoAnswer::Flaw)
    }

    /// What an ID token says that somebody brings; none from a provider that has none.
    pub(super) async fn read(
        &self,
        token: &Secret,
        nonce: &str,
        clock: &Clock,
    ) -> Result<Option<Said>, NoAnswer> {
        let (Kind::Oidc(issuer), Reach::Http(client)) = (&self.provider.kind, &self.reach) else {
            return Ok(None);
        };
        let native = self.provider.native_client_ids.iter().map(String::as_str);
        let expected = Expected {
            provider: &self.provider,
            issuer,
            audiences: std::iter::once(self.provider.client_id.as_str()).chain(native).collect(),
            nonce,
            hashed_nonce: true,
            access_token: None,
            now: clock.now(),
        };
        let expected = &expected;
        if let Some(known) = self.metadata.check_known(expected, token) {
            // Nobody was asked, so nobody answered.
            return known.and_then(|claims| self.said(&claims)).map(Some).map_err(NoAnswer::Flaw);
        }
        let claims = client.converse(|asking| async move {
            let discovery = self.metadata.discovery(&asking, issuer, false).await?;
            self.metadata.check(&asking, &discovery, expected, token).await
        });
        let claims = claims.await?.map_err(NoAnswer::Flaw)?;
        self.said(&claims).map(Some).map_err(NoAnswer::Flaw)
    }

    /// What claims say, in our words.
    fn said(&self, claims: &Claims) -> Result<Said, Flaw> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let methods = claims.get("amr").and_then(Value::as_array);
        let (amr, acr) = (&self.provider.trusted_amr, &self.provider.trusted_acr);
        let shown = methods
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|one| amr.iter().any(|known| known == one));
        let class = claims.get("acr").and_then(Value::as_str);
        Ok(Said {
            subject: match &self.provider.kind {
                Kind::Oidc(issuer) => {
                    issuer.subject(claims.get("tid").and_then(Value::as_str), subject(claims)?)
                }
                Kind::GitHub { .. } | Kind::Pretend => subject(claims)?.to_owned(),
            },
            nonce: text("nonce"),
            email: text("email"),
            // The JSON value true, and nothing that looks like it.
            verified: claims.get("email_verified") == Some(&Value::Bool(true)),
            name: text("name"),
            locale: text("locale"),
            level_2: shown || class.is_some_and(|class| acr.iter().any(|known| known == class)),
        })
    }
}

/// One conversation about somebody.
struct Talk<'t> {
    connection: &'t Connection,
    asking: &'t Asking,
    clock: &'t Clock,
}

/// What a provider gives for a code (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    access_token: Option<Secret>,
    #[serde(default)]
    id_token: Option<Secret>,
    /// In their place (§5.2).
    #[serde(default)]
    error: Option<String>,
}

type Answered = Result<Result<Said, Flaw>, CallError>;

impl Talk<'_> {
    fn provider(&self) -> &Provider {
        &self.connection.provider
    }

    async fn open_id(
        &self,
        issuer: &Issuer,
        flow: &Flow<'_>,
        brought: &Brought,
        redirect_uri: &str,
    ) -> Answered {
        let discovery = self.connection.metadata.discovery(self.asking, issuer, false).await?;
        // Nobody's code is given to somebody else. What is there was compared before (RFC 9207 §2.4).
        if brought.iss.is_none() && discovery.authorization_response_iss_parameter_supported == Some(true) {
            return Ok(Err(Flaw::Issuer));
        }
        let tokens = match self.redeem(&discovery.token_endpoint, flow, brought, redirect_uri).await? {
            Ok(tokens) => tokens,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let Some(id_token) = tokens.id_token else { return Ok(Err(Flaw::Unreadable)) };
        let nonce = flow.nonce();
        let expected = Expected {
            provider: self.provider(),
            issuer,
            audiences: vec![&self.provider().client_id],
            nonce: nonce.reveal(),
            hashed_nonce: false,
            access_token: tokens.access_token.as_ref(),
            now: self.clock.now(),
        };
        let checked = self.connection.metadata.check(self.asking, &discovery, &expected, &id_token).await?;
        let mut claims = match checked {
            Ok(claims) => claims,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if let Some(endpoint) =
            discovery.userinfo_endpoint.as_deref().filter(|_| !claims.contains_key("email"))
        {
            let Some(access) = &tokens.access_token else { return Ok(Err(Flaw::AccessToken)) };
            let more = match self.user_info(endpoint, access).await? {
                Ok(more) => more,
                Err(flaw) => return Ok(Err(flaw)),
            };
            // About the same person (§5.3.2), or about nobody.
            if subject(&more) != subject(&claims) {
                return Ok(Err(Flaw::UserInfo));
            }
            // Address and whether it is proven are from one place.
            claims.remove("email_verified");
            for name in ["email", "email_verified", "name", "locale"] {
                if let (false, Some(value)) = (claims.contains_key(name), more.get(name)) {
                    claims.insert(name.to_owned(), value.clone());
                }
            }
        }
        Ok(self.connection.said(&claims))
    }

    /// A code for tokens.
    async fn redeem(
        &self,
        endpoint: &str,
        flow: &Flow<'_>,
        brought: &Brought,
        redirect_uri: &str,
    ) -> Result<Result<Tokens, Flaw>, CallError> {
        let verifier = flow.verifier();
        let provider = self.provider();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", brought.code.reveal()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.reveal()),
        ];
        let mut headers = vec![JSON];
        let (basic, apple);
        match &provider.client {
            Client::Public => form.push(("client_id", &provider.client_id)),
            Client::Post(secret) => {
                form.extend([("client_id", provider.client_id.as_str()), ("client_secret", secret.reveal())]);
            }
            Client::Basic(secret) => {
                // RFC 6749 §2.3.1: both as in a form, then as one.
                let both = format!("{}:{}", in_form(&provider.client_id), in_form(secret.reveal()));
                basic = Secret::new(format!("Basic {}", BASE64.encode(both.as_bytes())));
                headers.push(("authorization", basic.reveal()));
            }
            Client::Apple { team, key_id, key } => {
                apple = self.apple(team, key_id, key)?;
                form.extend([("client_id", provider.client_id.as_str()), ("client_secret", apple.reveal())]);
            }
        }
        let answer = self.asking.post_form(endpoint, &headers, &form).await?;
        let error = match answer.status {
            200 => {
                let tokens: Tokens = sense(&answer)?;
                // GitHub answers 200 whatever it is.
                if tokens.error.is_none() || tokens.access_token.is_some() {
                    return Ok(Ok(tokens));
                }
                tokens.error
            }
            408 | 429 => return Err(CallError::Away(format!("it answered {}", answer.status))),
            401 => Some("invalid_client".to_owned()),
            _ => sense::<Tokens>(&answer).ok().and_then(|tokens| tokens.error),
        };
        // Then it is the settings that are wrong, and nobody gets in by them. Whatever else it says, it says about the code,
        // which came from a browser.
        let ours = ["invalid_client", "unauthorized_client", "incorrect_client_credentials"];
        if error.as_deref().is_some_and(|error| ours.contains(&error)) {
            tracing::error!(
                provider = provider.id,
                "an identity provider does not take our client_id or client_secret"
            );
            return Err(CallError::Away("it does not take our client's name or secret".into()));
        }
        Ok(Err(Flaw::Code))
    }

    fn apple(&self, team: &str, key_id: &str, key: &jsonwebtoken::EncodingKey) -> Result<Secret, CallError> {
        let now = self.clock.now();
        let header = Header { kid: Some(key_id.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({
            "iss": team, "iat": now.seconds(), "exp": (now + APPLE_SECRET).seconds(), "aud": APPLE,
            "sub": self.provider().client_id,
        });
        let signed = jsonwebtoken::encode(&header, &claims, key);
        signed.map(Secret::new).map_err(|_| CallError::Refused("Apple's key does not sign".into()))
    }

    async fn user_info(&self, endpoint: &str, access: &Secret) -> Result<Result<Claims, Flaw>, CallError> {
        let bearer = Secret::new(format!("Bearer {}", access.reveal()));
        let answer = self.asking.get(endpoint, &[JSON, ("authorization", bearer.reveal())]).await?;
        match answer.status {
            200 => Ok(Ok(sense(&answer)?)),
            429 => Err(CallError::Away("it answered 429".into())),
            _ => Ok(Err(Flaw::UserInfo)),
        }
    }

    async fn github(
        &self,
        (base, api): (&str, &str),
        flow: &Flow<'_>,
        brought: &Brought,
        redirect_uri: &str,
    ) -> Answered {
        #[derive(Deserialize)]
        struct User {
            id: u64,
            #[serde(default)]
            login: String,
            #[serde(default)]
            name: Option<String>,
        }
        #[derive(Deserialize)]
        struct Address {
            email: String,
            primary: bool,
            verified: bool,
        }
        // GitHub answers 200 also when it does not take the code.
        let endpoint = format!("{base}/login/oauth/access_token");
        let tokens = match self.redeem(&endpoint, flow, brought, redirect_uri).await? {
            Ok(tokens) => tokens,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let Some(access) = tokens.access_token else { return Ok(Err(Flaw::Code)) };
        let bearer = Secret::new(format!("Bearer {}", access.reveal()));
        let headers = [("accept", "application/vnd.github+json"), ("authorization", bearer.reveal())];
        let answer = self.asking.get(&format!("{api}/user"), &headers).await?;
        match answer.status {
            200 => {}
            // So many questions in an hour.
            403 | 429 => return Err(CallError::Away(format!("its API answered {}", answer.status))),
            _ => return Ok(Err(Flaw::UserInfo)),
        }
        let user: User = sense(&answer)?;
        let answer = self.asking.get(&format!("{api}/user/emails?per_page=100"), &headers).await?;
        // Without the permission there is no address.
        let all: Vec<Address> = if answer.status == 200 { sense(&answer)? } else { Vec::new() };
        let primary = all.into_iter().take(MANY).find(|one| one.primary && one.verified);
        Ok(Ok(Said {
            subject: user.id.to_string(),
            verified: primary.is_some(),
            email: primary.map(|one| one.email).unwrap_or_default(),
            name: user.name.filter(|name| !name.is_empty()).unwrap_or(user.login),
            locale: String::new(),
            level_2: false,
            nonce: String::new(),
        }))
    }
}

fn sense<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, CallError> {
    serde_json::from_slice(&answer.body).map_err(|_| no_sense())
}

fn no_sense() -> CallError {
    CallError::Away("its answer makes no sense".into())
}

fn in_form(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The people of dev mode.
pub(super) const PEOPLE: [(&str, &str, &str, &str); 4] = [
    ("verified", "Ada Dev", "ada@dev.example", "an address that the provider has proven"),
    ("unverified", "Uma Dev", "uma@dev.example", "an address that nobody has proven"),
    ("no_email", "Noel Dev", "", "neither an address nor a name"),
    ("changed_email", "Ada Dev", "ada.new@dev.example", "the same person as the first, with another address"),
];

/// What the pretend provider says about one of them.
fn pretend(code: &str) -> Option<Said> {
    let (id, name, email, _) = PEOPLE.into_iter().find(|(id, ..)| *id == code)?;
    let subject = match id {
        "verified" | "changed_email" => "dev-ada",
        "unverified" => "dev-uma",
        _ => "dev-noel",
    };
    Some(Said {
        subject: subject.to_owned(),
        email: email.to_owned(),
        verified: matches!(id, "verified" | "changed_email"),
        name: if email.is_empty() { String::new() } else { name.to_owned() },
        locale: String::new(),
        level_2: false,
        nonce: String::new(),
    })
}
